"""The Ray driver: a child of the coordinator, which knows no Ray. One JSON object a line, questions on standard input,
answers on standard output.

    {"address": "10.0.0.7:6379", "about": {...}}        first: connect; {"said": the session}. What it is about is
                                                        shown as the metadata of this job by Ray's dashboard
    {"ask": "nodes"}                                    jobs/launchers/ray/nodes.py
    {"ask": "submit", "request": {...}}                 jobs/launchers/ray/request.py; the number of its placement
                                                        group, null where its name is taken
    {"ask": "groups", "tags": [...]}                    jobs/launchers/ray/group.py: what there is of these jobs, and
                                                        which of those that are gone `failed`; all where tags is null
    {"ask": "call", "group": {...}, "method": "signal", "arguments": [12]}     of all its actors
    {"ask": "remove", "group": {...}}

    {"said": ...} or {"error": "words"}

It is a process of its own because Ray ends the driver of a cluster whose head is gone, and prints where it likes. It
ends with the pipe; jobs are detached actors, and do not need it.
"""

import errno
import json
import logging
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError, RayActorError, RayError
from ray.job_config import JobConfig
from ray.util.placement_group import (
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from jobs import files, outcome
from jobs.launchers.ray import actor, group, names, nodes, unbegun
from jobs.spec import Cause

LEAVE_S = 15.0
LOOK_S = 10.0
UNREADY = "DEPENDENCIES_UNREADY"


class Driver:
    """Answers questions about one cluster, for as long as that lives. `failed`: the groups of which an actor, or its
    supervisor, could not begin; only the driver that made it learns that.
    """

    def __init__(self, address: str, about: Mapping[str, str]) -> None:
        _look(address)
        ray.init(
            address=address,
            namespace=names.NAMESPACE,
            job_config=JobConfig(metadata=dict(about)),
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
        ray.cloudpickle.register_pickle_by_value(actor)
        self._rank = ray.remote(actor.Rank)
        self._begun: dict[Any, tuple[str, str, int]] = {}  # tag and number of the group, and the rank
        self._failed: dict[str, group.Failure] = {}
        context = ray.get_runtime_context()
        self.session: str = context.get_session_name()
        self._node: str = context.get_node_id()

    def answer(self, question: Mapping[str, Any]) -> Any:
        """What is to be said; RayError, OSError, ValueError and RuntimeError in Ray's words."""
        there = self._nodes()
        match question:
            case {"ask": "nodes"}:
                return [asdict(node) for node in there]
            case {"ask": "submit", "request": asked}:
                return self._submit(asked, there)
            case {"ask": "groups", "tags": tags}:
                found = self._groups(tags, there)
                return [asdict(one) for one in found + self._gone(tags or (), found)]
            case {"ask": "call", "group": one, "method": method, "arguments": arguments}:
                return self._call(one, method, arguments)
            case {"ask": "remove", "group": one}:
                return self._remove(one)
        raise ValueError(f"not a question: {question!r}")

    def _nodes(self) -> list[nodes.Node]:
        """All that live, ours among them. Where that is gone, a driver still gets answers, even those of another head
        at the same address; but whoever it asks to make an actor tries for ever, with a whole core.
        """
        there = nodes.parse(ray.nodes())
        if self._node not in {node.number for node in there}:
            raise ConnectionError("the node that the driver was connected to is gone")
        return there

    def _submit(self, asked: Mapping[str, Any], there: list[nodes.Node]) -> str | None:
        """Named before it has a place, so that it is found whatever happens next. Nothing here waits for resources."""
        if self._groups([asked["name"]], there):
            return None
        made = placement_group(asked["bundles"], strategy=asked["strategy"], name=asked["name"], lifetime="detached")
        number: str = made.id.hex()
        each, ranks = asked["ranks_per_node"], asked["ranks_per_node"] * len(asked["bundles"])
        for rank, name in enumerate(names.actors(asked["name"], ranks)):
            options = self._rank.options(
                name=name,
                lifetime="detached",
                num_cpus=asked["rank"]["CPU"],
                num_gpus=asked["rank"].get("GPU", 0),
                memory=asked["rank"].get("memory", 0),
                max_restarts=0,
                max_concurrency=2 * ranks + 16,  # every other rank may wait for this one, twice
                scheduling_strategy=PlacementGroupSchedulingStrategy(made, placement_group_bundle_index=rank // each),
            )
            task = {**asked, "rank": rank, "ranks": ranks, "job": f"{self.session}:{number}"}
            made_actor = options.remote(task)
            _hand_over(made_actor)
            self._begun[made_actor.wait.remote()] = (asked["name"], number, rank)
        return number

    def _groups(self, tags: Iterable[str] | None, there: list[nodes.Node]) -> list[group.Group]:
        """By their names: Ray's table of all groups has those that were ever removed, too."""
        self._look_at_begun()
        live = group.live(ray.util.list_named_actors())
        rows = [*placement_group_table().values()] if tags is None else [*filter(None, map(_row, tags))]
        found = [group.of(row, live=live.get(row["name"], ()), nodes=there, failed=self._failed) for row in rows]
        return [one for one in found if one is not None]

    def _gone(self, tags: Iterable[str], found: Iterable[group.Group]) -> list[group.Group]:
        """Those of these jobs that failed and have no group any more."""
        left = {*tags} - {one.tag for one in found}
        return [group.gone(number, failure) for number, failure in self._failed.items() if failure.tag in left]

    def _look_at_begun(self) -> None:
        """Which of our actors ended in their first moment, and which supervisors say by their code why they did."""
        done, _ = ray.wait([*self._begun], num_returns=len(self._begun), timeout=0) if self._begun else ([], [])
        for one in done:
            tag, number, rank = self._begun.pop(one)
            try:
                code = ray.get(one)
            except RayActorError as error:
                if error.actor_init_failed:
                    words = str(error).strip().splitlines()[-1]
                    self._failed[number] = group.Failure(tag, words, Cause.NODE)
            else:
                if unbegun.is_told_by(code):
                    words = unbegun.words_of(code, rank=rank)
                    self._failed[number] = group.Failure(tag, words, outcome.EXIT_CAUSES[code])

    def _call(self, one: Mapping[str, Any], method: str, arguments: list[Any]) -> None:
        """Told, not waited for."""
        for rank in one["live"]:
            with suppress(ValueError):  # it has ended meanwhile
                getattr(ray.get_actor(names.actor(one["tag"], rank)), method).remote(*arguments)

    def _remove(self, one: Mapping[str, Any]) -> None:
        with suppress(ValueError):
            found = get_placement_group(one["tag"])
            if found.id.hex() == one["number"]:
                remove_placement_group(found)


def _row(tag: str) -> Mapping[str, Any] | None:
    """What Ray has of a group; None where there is none of this name."""
    with suppress(ValueError):
        row: Mapping[str, Any] = placement_group_table(get_placement_group(tag))
        return row
    return None


def _hand_over(handle: Any) -> None:
    """Until the cluster has all that it needs to make an actor: before, the actor would go with this driver."""
    until = time.monotonic() + LEAVE_S
    while ray._private.state.actors(handle._actor_id.hex()).get("State", UNREADY) == UNREADY:
        if time.monotonic() > until:
            raise RuntimeError("the cluster does not take an actor over")
        time.sleep(0.002)


def _look(address: str) -> None:
    """Fail at once, in few words, where nobody listens or the token is wrong: Ray would look for minutes, or abort."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=LOOK_S).close()
    except OSError as error:
        raise ConnectionError(f"nobody answers there: {error}") from error
    if (path := os.environ.get("RAY_AUTH_TOKEN_PATH")) and files.read(Path(path)) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    try:
        ray._raylet.GcsClient(address=address)
    except AuthenticationError as error:
        raise PermissionError(f"its token is another one: {str(error).partition('. ')[0]}") from error


def questions() -> Iterator[dict[str, Any]]:
    """Until the other end is closed; a call into Ray that never returns keeps this process no longer than LEAVE_S."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin.buffer:
            lines.put(line)
        lines.put(b"")
        time.sleep(LEAVE_S)
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    while line := lines.get():
        yield json.loads(line)


def main() -> int:
    """Connect, then answer; returns the exit code."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what Ray prints is no answer

    def tell(answer: Mapping[str, Any]) -> None:
        files.write_all(answers, json.dumps(answer).encode() + b"\n")

    asked = questions()
    try:
        driver = Driver(**next(asked))
    except (RayError, OSError, RuntimeError, ValueError) as error:
        tell({"error": f"{error}"})
        return 1
    tell({"said": driver.session})
    for question in asked:
        try:
            tell({"said": driver.answer(question)})
        except (RayError, OSError, RuntimeError, ValueError) as error:
            tell({"error": f"{error}"})
    ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
