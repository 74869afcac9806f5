"""A simulated scheduler, simulated workers, a system that can end a process at any call: what `World` is made of."""

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs import files, outcome
from jobs.files import AttemptDir
from jobs.launcher import Refused
from jobs.outcome import Outcome
from jobs.spec import Cause, Handle, JobSpec, JobState, Observation, Resources, Result
from stx import records
from stx.config.cluster import Cluster
from stx.errors import BackendError
from stx.paths import StageDir
from stx.spec import GROWING, Artifact, Node, StageSpec, wanted
from stx.stages.base import layouts_of


class Killed(BaseException):
    """The process ends here."""


class System:
    """What jobs.files sees of the system: no fsync (nobody pulls a plug), and an end after so many calls."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.meanwhile: Callable[[], object] | None = None
        self.full = False

    def __getattr__(self, name: str):
        call = getattr(os, name)
        if name == "fsync":
            call = self._nothing
        if name == "write" and self.full:
            call = self._no_space
        return self._counted(call) if name in {"open", "write", "rename", "link", "unlink", "fsync"} else call

    def _interrupt(self) -> None:
        if self.meanwhile is None:
            raise Killed
        self.left, meanwhile = None, self.meanwhile
        meanwhile()

    def _nothing(self, descriptor: int) -> None:
        pass

    def _no_space(self, descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def _counted(self, call):
        def counted(*arguments, **options):
            if self.left is not None:
                if self.left <= 0:
                    self._interrupt()
                else:
                    self.left -= 1
            return call(*arguments, **options)

        return counted


@dataclass
class Job:
    handle: Handle
    folder: AttemptDir
    ranks: int
    state: JobState = JobState.PENDING


@dataclass
class Lies:
    """How a scheduler's answers differ from the truth. By job id: `late` answers what it was then; `silent` has no
    answer; `unknown` says so; `blinking` looks gone in one answer. `hidden` is not found by its name.
    """

    late: dict[str, JobState] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    blinking: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)

    def about(self, job: Job) -> JobState | None:
        """The answer to one question."""
        name = job.handle.job_id
        if name in self.blinking:
            self.blinking.discard(name)
            return JobState.ENDED
        if name in self.silent:
            return None
        return JobState.UNKNOWN if name in self.unknown else self.late.get(name, job.state)

    def end(self) -> None:
        """The truth from now on."""
        for told in (self.late, self.silent, self.unknown, self.blinking, self.hidden):
            told.clear()


class SimKind:
    """A stage kind whose jobs nobody really runs."""

    def layouts(self, node: Node, cluster: Cluster) -> list[Mapping[str, int]]:
        return [{"ranks": one.ranks} for one in layouts_of(cluster.resources(node.spec.kind))]

    def job(self, node: Node, *, layout: Mapping[str, int], tag: str, attempt_dir: Path, **_: Any) -> JobSpec:
        resources = Resources(ranks_per_node=layout["ranks"])
        return JobSpec(tag=tag, argv=("true",), attempt_dir=attempt_dir, cwd=attempt_dir, resources=resources)


class SimLauncher:
    """jobs.launcher.Launcher on jobs that only the test moves on."""

    def __init__(self, name: str = "sim") -> None:
        self.name = name
        self.jobs: list[Job] = []
        self.fail_polls = False
        self.refuse = ""
        self.full = False
        self.submits = 0
        self.largest = 10**9
        self.timeouts = 0
        self.spare = 1
        self.causes: dict[str, tuple[Cause, tuple[str, ...]]] = {}
        self.polls = 0
        self.lies = Lies()
        self.cancelled: list[Job] = []
        self.cured: Callable[[], bool] | None = None

    def identity(self) -> str:
        return self.name

    def refusal(self, resources: Resources) -> str | None:
        return f"{resources.ranks} ranks" if resources.ranks > self.largest else None

    def avoidable(self, job: JobSpec, nodes: Sequence[str]) -> tuple[str, ...]:
        return tuple(nodes[: self.spare])

    def render(self, job: JobSpec) -> str:
        return " ".join(job.argv)

    def submit(self, job: JobSpec) -> Handle:
        self.submits += 1
        if self.refuse:
            raise BackendError(self.refuse)
        if self.full:
            refused = Refused("you have as many jobs as you may", later=True)
            refused.cured = self.cured
            raise refused
        handle = Handle(job.tag, f"job{len(self.jobs)}")
        self.jobs.append(Job(handle, AttemptDir(job.attempt_dir), job.resources.ranks))
        if self.timeouts:
            self.timeouts -= 1
            raise TimeoutError("Socket timed out")
        return handle

    def poll(self, handles: Sequence[Handle], attempt_dirs: Mapping[str, Path]) -> dict[Handle, Observation]:
        self.polls += 1
        if self.fail_polls:
            raise RuntimeError("cannot reach the controller")
        by_id = {job.handle.job_id: job for job in self.jobs}
        said = {handle: self.lies.about(by_id[handle.job_id]) for handle in handles}
        return {handle: self._observed(handle, state) for handle, state in said.items() if state is not None}

    def _observed(self, handle: Handle, state: JobState) -> Observation:
        cause, nodes = self.causes.get(handle.job_id, (None, ()))
        return Observation(state, cause=cause, failed=nodes) if state is JobState.ENDED else Observation(state)

    def find(self, tag: str, attempt_dir: Path) -> Handle | None:
        shown = (job.handle for job in self.jobs if job.handle.job_id not in self.lies.hidden)
        return next((handle for handle in shown if handle.tag == tag), None)

    def stop(self, handle: Handle, attempt_dir: Path) -> None:
        files.publish(AttemptDir(attempt_dir).stop, b"{}")

    def cancel(self, handle: Handle, attempt_dir: Path) -> None:
        for job in self.jobs:
            if job.handle.job_id == handle.job_id:
                if job.state is JobState.RUNNING:
                    self.cancelled.append(job)
                job.state = JobState.ENDED

    def live(self) -> list[Job]:
        return [job for job in self.jobs if job.state is not JobState.ENDED]

    def start(self, job: Job) -> None:
        """What jobs.exec does first: leave when another job runs this attempt, or when it was stopped meanwhile."""
        if job.state is not JobState.PENDING:
            return
        job.folder.path.mkdir(exist_ok=True)
        if not records.publish(job.folder.started, {"job_id": job.handle.job_id}):
            job.state = JobState.ENDED
            return
        job.state = JobState.RUNNING
        if job.folder.stop.exists():
            self.end(job, Result.YIELDED)
            return
        job.folder.alive(0).touch()

    def end(self, job: Job, result: Result, *, cause: Cause | None = None, message: str = "") -> None:
        for rank in range(job.ranks):
            outcome.publish(job.folder, Outcome(rank, result, cause, message))
        job.state = JobState.ENDED


def publish_result(stage: StageDir, spec: StageSpec, images: int | None) -> None:
    """A result that depends on nothing but what it is the result of."""
    part = stage.result if images is None else stage.part(spec.kind, images)
    part.path.mkdir(parents=True, exist_ok=True)
    artifact = Artifact(spec.kind, spec.key, images, {"payload": records.digest([spec.key, images])})
    records.publish(part.artifact, artifact.dump())


class Worker:
    """What a worker does between its start and its end, by its attempt.json."""

    def __init__(self, job: Job) -> None:
        self.record = records.read(job.folder.attempt)
        self.spec = StageSpec.parse(self.record["spec"])
        self.stage = StageDir(job.folder.path.parent.parent)

    def work(self, *, parts: int | None = None) -> None:
        """Publish what can be published now; of a growing kind at most so many parts."""
        if self.spec.kind not in GROWING:
            publish_result(self.stage, self.spec, None)
            return
        missing = sorted(wanted(self.stage) - set(self.stage.parts(self.spec.kind)))
        for images in [one for one in missing if self._possible(one)][:parts]:
            publish_result(self.stage, self.spec, images)

    def save(self) -> None:
        """A checkpoint, further than the last."""
        saved = [int(path.name.split("-")[0]) for path in self.stage.checkpoints.glob("*")]
        (self.stage.checkpoints / f"{max(saved, default=0) + 1}-{self.record['number']}").mkdir(parents=True)

    def _possible(self, images: int) -> bool:
        streams = [
            value for value in self.record["inputs"].values() if value["kind"] in GROWING and not value["images"]
        ]
        return all(images in StageDir(Path(value["path"])).parts(value["kind"]) for value in streams)


def only(coordinator):
    """The one stage of a coordinator."""
    return next(stage for _, stage in coordinator.state.rows())


def start_all(world):
    """Every job that waits begins."""
    for job in world.launcher.live():
        world.launcher.start(job)


def end_all(world, result=Result.COMPLETED, **words):
    """Every job begins, and ends like this."""
    for job in world.launcher.live():
        world.launcher.start(job)
        if job.state is JobState.RUNNING:
            world.launcher.end(job, result, **words)
