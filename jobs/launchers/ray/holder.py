"""What an actor does for its rank (jobs/launchers/ray/actor.py says when)."""

import os
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    placement_group_table,
    remove_placement_group,
)

from jobs import files
from jobs.files import AttemptDir
from jobs.launchers.ray import metrics, names, nodes, unbegun
from jobs.launchers.ray.child import Child
from jobs.placement import Placement
from jobs.supervisor import END_GRACE_S

FOUND_WITHIN_S = 120.0
LOOK_S = 1.0
SLACK_S = 5.0  # a supervisor that ends its ranks takes its own grace


class Holder:
    """Holds the place of one rank until all ranks have ended."""

    def __init__(self, task: Mapping[str, Any]) -> None:
        self._rank: int = task["rank"]
        self._names = names.actors(task["name"], task["ranks"])
        self._stop_lead_s: float = task["stop_lead_s"]
        self._attempt = AttemptDir(Path(task["attempt_dir"]))
        self._group = get_current_placement_group()
        files.make_dir(self._attempt.scheduler_logs)
        self._log = self._attempt.scheduler_logs / f"{self._group.id.hex()}_{self._rank}_log.out"
        self._env = environment(task, self._group)
        self._over = threading.Event()
        self._is_unbegun = False  # whether a supervisor's exit code says why it could not begin
        self.child = Child(task["command"], self._attempt.path, env=self._env, log=self._log)
        hold = self._hold_all if self._rank == 0 else self._hold_one
        threading.Thread(target=hold, name="holder", daemon=True).start()
        threading.Thread(target=self._attend, name="attend", daemon=True).start()
        if self._rank == 0:
            metrics.start(self._attempt)

    @property
    def is_over(self) -> bool:
        """Whether the supervisor has ended with all that it started, and what it could not say is said for it."""
        return self._over.is_set()

    def _attend(self) -> None:
        try:
            self.child.wait()
            unbegun.say(self._attempt, self._placement(), code=self.child.code, printed=self._log)
        finally:
            self._over.set()

    def _placement(self) -> Placement:
        """As the supervisor has it."""
        return Placement(
            job_id=self._env["STX_RAY_JOB"],
            only=self._rank,
            node=self._env["STX_RAY_NODE"],
            nodes=self._env["STX_RAY_NODES"],
            tag=self._env["STX_RAY_TAG"],
        )

    def _hold_all(self) -> None:
        """Rank 0: mind the others, and end the job when all have ended."""
        others = {rank: find(name) for rank, name in enumerate(self._names) if rank != 0}
        lost = self._mind(others)
        self._over.wait()
        self._wait_for(lost)
        if self._is_unbegun or unbegun.is_told_by(self.child.code):
            time.sleep(LOOK_S)  # the driver asked each actor for its code, and is answered before the actors go
        remove_placement_group(self._group)

    def _hold_one(self) -> None:
        """Another rank: mind rank 0, which ends this actor with all others; if it cannot, this one ends itself.

        What the placement group was reserved for may then still be saving: who finds it without actors waits.
        """
        first = find(self._names[0])
        self._mind({0: first})
        self._over.wait()
        if first is not None:
            ray.wait([first.stay.remote()])
        ray.kill(ray.get_runtime_context().current_actor)

    def _mind(self, others: Mapping[int, Any]) -> list[int]:
        """Until these have ended, and ours, too, where one of them did not end well. Those whose actors are gone."""
        waits = {actor.wait.remote(): rank for rank, actor in others.items() if actor is not None}
        lost = [rank for rank, actor in others.items() if actor is None]
        if lost:
            self._leave(others.values())
        while waits:
            (done, *_), _ = ray.wait([*waits], num_returns=1)
            rank = waits.pop(done)
            try:
                if (code := ray.get(done)) != 0:
                    self._is_unbegun |= unbegun.is_told_by(code)
                    self.child.end()
            except RayError:
                lost.append(rank)
                self._leave(others.values())
        return lost

    def _leave(self, others: Iterable[Any]) -> None:
        """An actor is gone, and its rank, if that lives, saves with all others: each has the time of a stop for it. Who
        minds the others tells them.
        """
        within_s = self._stop_lead_s + END_GRACE_S  # as the supervisor of that actor ends its own rank
        self.child.end(grace_s=within_s)
        for actor in others:
            if actor is not None:
                actor.end.remote(within_s)

    def _wait_for(self, lost: Iterable[int]) -> None:
        """Those that nobody holds any more end by themselves: when they have said so, or when their time is over."""
        until = time.monotonic() + self._stop_lead_s + END_GRACE_S + SLACK_S
        while time.monotonic() < until and not all(self._attempt.outcome(rank).exists() for rank in lost):
            time.sleep(LOOK_S)


def find(name: str) -> Any:
    """An actor of ours; None where there is none, even some time later: all of a job are made one after the other."""
    until = time.monotonic() + FOUND_WITHIN_S
    while True:
        with suppress(ValueError):
            return ray.get_actor(name, namespace=names.NAMESPACE)
        if time.monotonic() > until:
            return None
        time.sleep(LOOK_S)


def environment(task: Mapping[str, Any], group: PlacementGroup) -> dict[str, str]:
    """What the supervisor is told (jobs/placement.py)."""
    context = ray.get_runtime_context()
    called = {node.number: node.name for node in nodes.parse(ray.nodes())}
    placed = placement_group_table(group)["bundles_to_node_id"]
    return {
        "PYTHONPATH": task["path"],
        "STX_RAY_JOB": task["job"],
        "STX_RAY_TAG": task["name"],
        "STX_RAY_RANK": str(task["rank"]),
        "STX_RAY_GPUS": ",".join(context.get_accelerator_ids()["GPU"]),
        "STX_RAY_NODE": called.get(context.get_node_id(), os.uname().nodename),
        "STX_RAY_NODES": ",".join(called.get(placed[bundle], "") for bundle in sorted(placed)),
    }
