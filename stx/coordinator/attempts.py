"""Everything a coordinator writes about a stage: the key's record, the own mark, claims, jobs, verdicts, retries.

A claim is attempts/NNN.intent.json, made by link(2): one claimant. It holds the whole attempt (the job, and what
becomes attempt.json), so that after a crash anyone can bring the same attempt on its way:

    intent -> attempts/NNN/ -> attempt.json -> request.txt -> submit -> handle.json

A job that was given to the scheduler twice runs once: the second finds the first one's started.json, and leaves.
"""

import contextlib
import functools
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from jobs import files
from jobs.launcher import Launcher, Refused
from jobs.outcome import FULL, cause_of
from jobs.spec import Cause, Handle, JobSpec, Resources
from stx import named, records, sharing
from stx.config.cluster import Cluster
from stx.coordinator import layouts
from stx.coordinator.events import Facts
from stx.coordinator.layouts import Option
from stx.coordinator.nodes import Nodes
from stx.coordinator.snapshot import Code
from stx.coordinator.survey import Progress, find_job, measure
from stx.coordinator.topology import Vertex
from stx.coordinator.verdict import bar, publish_verdict
from stx.endings import claim_of, num_ranks
from stx.errors import BackendError, StoreError, StxError
from stx.paths import StageDir, Store
from stx.spec import GROWING, Input, Node

T = TypeVar("T")
NO_STORE_YET = {"id": "-" * 8}  # a plan may come before the first submit


def ask(question: Callable[[], T]) -> T:
    """Ask a launcher something: whatever goes wrong in there is the scheduler's, except for our own full disk."""
    try:
        return question()
    except (StxError, OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
        if isinstance(error, BackendError) or (isinstance(error, OSError) and error.errno in FULL):
            raise
        words = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
        told = BackendError(words)
        if isinstance(error, Refused):
            told.later, told.cured = error.later, error.cured
        raise told from error


class Kind(Protocol):
    """stx/stages/NAME.py, as far as it is needed here."""

    def layouts(self, node: Node, cluster: Cluster) -> Sequence[Mapping[str, Any]]:
        """How the work may be spread, for attempt.json, in order of preference."""

    def job(
        self,
        node: Node,
        *,
        cluster: Cluster,
        layout: Mapping[str, Any],
        tag: str,
        attempt_dir: Path,
        python: str,
        code: Path,
    ) -> JobSpec:
        """The job in one of them."""


def load_kind(name: str) -> Kind:
    """The stage kind of that name."""
    kind: Kind = named.load("stx.stages", name)
    return kind


@dataclass(frozen=True)
class Attempts:
    """What one coordinator needs to act. `token` is its lease's; `hold` raises when the lease is lost."""

    store: Store
    experiment: str
    token: int
    launcher: Launcher
    cluster: Cluster
    code: Code
    python: str
    accept_code: bool
    hold: Callable[[], None]
    load_kind: Callable[[str], Kind] = load_kind
    _recorded: set[str] = field(default_factory=set)
    _noted: set[tuple[str, int]] = field(default_factory=set)

    @functools.cached_property
    def _nodes(self) -> Nodes:
        return Nodes(self.store, self.launcher.identity(), self.cluster.bad_nodes)

    def stage(self, vertex: Vertex) -> StageDir:
        """The stage's directory."""
        return self.store.stage(vertex.node.spec.kind, vertex.key)

    def want(self, vertex: Vertex) -> None:
        """Publish stage.json and put the own mark."""
        stage = self.stage(vertex)
        if vertex.key not in self._recorded:
            for folder in (stage.path, stage.wanted_by, stage.attempt(0).path.parent):
                files.make_dir(folder)
            publish_record(stage, vertex.node)
            self._recorded.add(vertex.key)
        mark = {"experiment": self.experiment, "images": list(vertex.wants)}
        if records.find(stage.mark(self.experiment)) != mark:
            records.write(stage.mark(self.experiment), mark)

    def unmark(self, vertex: Vertex) -> None:
        """This experiment no longer wants the stage."""
        self.stage(vertex).mark(self.experiment).unlink(missing_ok=True)

    def forgive(self, vertex: Vertex, number: int) -> None:
        """Budgets count the attempts after this one."""
        record = self.stage(vertex).retry(number)
        files.make_dir(record.parent)
        files.publish(record, b"")

    def claim(self, vertex: Vertex, number: int) -> bool:
        """Reserve the attempt's number. False: another one was first."""
        stage = self.stage(vertex)
        attempt = stage.attempt(number)
        intent = self._intent(vertex, number, before=measure(stage, vertex.node.spec.kind))
        self.hold()
        return records.publish(attempt.intent, intent)

    def submit(self, vertex: Vertex, number: int) -> None:
        """Bring a claimed attempt on its way. A scheduler that refuses is a verdict: SETUP, with its message."""
        attempt = self.stage(vertex).attempt(number)
        intent = records.read(attempt.intent)
        with records.understood(attempt.intent):
            job, told = JobSpec.parse(intent["job"]), dict(intent["attempt"])
        files.make_dir(attempt.path)
        records.publish(attempt.attempt, told)
        try:
            files.write(attempt.request, ask(lambda: self.launcher.render(job)).encode())
            self.hold()
            handle = ask(lambda: self.launcher.submit(job))
        except BackendError as error:
            self._refused(vertex, number, error)
            if error.later:
                raise
            return
        records.publish(attempt.handle, handle.dump())

    def adopt(self, vertex: Vertex, number: int) -> bool:
        """Look for the job of an attempt without a handle; True: found, and the handle published."""
        attempt = self.stage(vertex).attempt(number)
        intent = records.read(attempt.intent)
        with records.understood(attempt.intent):
            tag = claim_of(intent).tag
        handle = ask(lambda: self.launcher.find(tag, attempt.path))
        if handle is None:
            return False
        files.make_dir(attempt.path)
        records.publish(attempt.handle, handle.dump())
        return True

    def judge(
        self,
        vertex: Vertex,
        number: int,
        *,
        job_id: str | None,
        cause: str,
        message: str,
        nodes: Sequence[str] = (),
    ) -> None:
        """Publish a verdict about an attempt whose job is gone (None: it had none), unless all its ranks spoke, or
        another job has begun it. `nodes`: those that failed, for the list of bad ones.
        """
        attempt = self.stage(vertex).attempt(number)
        intent = records.read(attempt.intent)
        with records.understood(attempt.intent):
            ranks = num_ranks(intent)
        files.make_dir(attempt.path)
        if bar(attempt, job_id=job_id, experiment=self.experiment):
            if cause == Cause.NODE:
                self._nodes.blame(attempt, nodes, message)
            publish_verdict(attempt, ranks=ranks, cause=cause, message=message, experiment=self.experiment)

    def note(self, vertex: Vertex, facts: Facts) -> None:
        """Keep in mind which nodes failed, by the ranks of an attempt that is over. On a full disk, at another look."""
        ended = facts.ended
        if ended is None or ended.cause != Cause.NODE or (vertex.key, ended.number) in self._noted:
            return
        with contextlib.suppress(OSError):
            self._nodes.note(self.stage(vertex).attempt(ended.number))
            self._noted.add((vertex.key, ended.number))

    def handle(self, vertex: Vertex, number: int) -> Handle | None:
        """The job of an attempt, for the launcher."""
        attempt = self.stage(vertex).attempt(number)
        job_id = find_job(attempt)
        return Handle(tag=self._tag(vertex, number), job_id=job_id) if job_id else None

    def _refused(self, vertex: Vertex, number: int, error: BackendError) -> None:
        # A scheduler may accept and then time out: look before it is called a failure. Of one that takes nothing now,
        # the claim waits, and the same attempt is submitted again.
        if not error.later and not self.adopt(vertex, number):
            reason = error.__cause__
            cause = cause_of(reason.errno) if isinstance(reason, OSError) else None
            message = f"the job was not accepted: {error.what}"
            self.judge(vertex, number, job_id=None, cause=cause or Cause.SETUP, message=message)

    def _intent(self, vertex: Vertex, number: int, *, before: Progress) -> dict[str, Any]:
        chosen = self.option(vertex, number)
        job = chosen.job
        if bad := self._nodes.to_avoid():
            job = replace(job, avoid=ask(lambda: self.launcher.avoidable(chosen.job, bad)))
        return {
            "tag": job.tag,
            "time": time.time(),
            "token": self.token,
            "number": number,
            "experiment": self.experiment,
            "name": vertex.node.name,
            "user": sharing.me(),
            "host": socket.gethostname(),
            "launcher": self.launcher.identity(),
            "cluster": self.cluster.name,
            "code": self.code.digest,
            "before": before.dump(),
            "job": job.dump(),
            "attempt": self._attempt(vertex, number, chosen),
        }

    def option(self, vertex: Vertex, number: int) -> Option:
        """The layout of an attempt of this number, if it were claimed now, with its job."""
        node, kind, stage = vertex.node, self.load_kind(vertex.node.spec.kind), self.stage(vertex)
        job = functools.partial(
            kind.job,
            node,
            cluster=self.cluster,
            tag=self._tag(vertex, number),
            attempt_dir=stage.attempt(number).path,
            python=self.python,
            code=self.code.path,
        )
        options = [Option(layout, job(layout=layout)) for layout in kind.layouts(node, self.cluster)]
        return layouts.choose(options, refusal=self._refusal, stage=stage).option

    def _refusal(self, size: Resources) -> str | None:
        return ask(lambda: self.launcher.refusal(size))

    def _attempt(self, vertex: Vertex, number: int, chosen: Option) -> dict[str, Any]:
        node, cluster, job = vertex.node, self.cluster, chosen.job
        return {
            "tag": job.tag,
            "experiment": self.experiment,
            "number": number,
            "kind": node.spec.kind,
            "key": node.key,
            "spec": node.spec.hashed(),
            "wants": list(vertex.wants),
            "where": dict(node.where),
            "layout": dict(chosen.layout),
            "inputs": {name: self._input(value) for name, value in node.spec.inputs.items()},
            "threads": job.resources.cpus_per_rank,
            "checkpoint": cluster.checkpoint.model_dump(),
            "time_s": job.resources.time_s,
            "stop_lead_s": job.stop_lead_s,
            "hang_after_s": cluster.hang_after_s.model_dump(),
            "code": self.code.digest,
            "science_digest": self.code.science_digest,
            "accept_code": self.accept_code,
        }

    def _input(self, value: Input) -> dict[str, Any]:
        stage = self.store.stage(value.kind, value.key)
        one_part = value.kind in GROWING and value.images is not None
        path = stage.part(value.kind, value.images or 0).path if one_part else stage.path
        return {"kind": value.kind, "key": value.key, "images": value.images, "path": str(path)}

    def _tag(self, vertex: Vertex, number: int) -> str:
        store_id = (records.find(self.store.record) or NO_STORE_YET)["id"]
        return f"stx-{store_id}-{self.stage(vertex).path.name.rpartition('-')[2]}-{number}"


def publish_record(stage: StageDir, node: Node) -> None:
    """Publish stage.json; StoreError when the key stands for something else."""
    content = node.spec.hashed()
    if records.publish(stage.record, content):
        return
    if records.dumps(records.read(stage.record)) == records.dumps(content):
        return
    raise StoreError(
        f"{node.name} has the key of this directory, but another content",
        where=str(stage.record),
        hint="a record was edited by hand, or two keys begin alike; move the directory away",
    )


def unmark_removed(store: Store, *, experiment: str, old: Mapping[str, str], kept: set[str]) -> None:
    """Remove the marks of stages (kind by key) that an edited experiment no longer has. Their jobs run on."""
    for key, kind in old.items():
        if key not in kept:
            with contextlib.suppress(FileNotFoundError):
                store.stage(kind, key).mark(experiment).unlink()
