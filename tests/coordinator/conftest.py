"""A world in a folder: real stores, files and coordinators; a simulated scheduler, simulated workers, a clock.

Coordinators can be killed inside any step of any write: `World.within` lets the n-th call of jobs.files into the
system, and everything after it, raise `Killed`, as if the process had ended there. Or another process acts just then.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs import files
from jobs.files import AttemptDir
from jobs.spec import JobState, Result
from stx.config.cluster import Cluster
from stx.coordinator import prepare
from stx.coordinator.driver import Coordinator
from stx.coordinator.lease import Observer, acquire
from stx.coordinator.snapshot import Code
from stx.errors import LeaseHeld
from stx.paths import StageDir, Store
from stx.spec import GROWING, Graph, Input, Node, StageSpec
from tests.coordinator.simulated import Killed, SimKind, SimLauncher, System, Worker, publish_result


def node(
    kind: str, name: str, *, wants: Sequence[int] = (), priority: float = 0.0, salt: str = "", **inputs: Input
) -> Node:
    spec = StageSpec(
        kind, 1, {"salt": salt or kind}, {name.replace("__", "."): value for name, value in inputs.items()}
    )
    return Node(name, name.partition(":")[0], spec, wants=tuple(wants), priority=priority)


def ref(source: Node, images: int | None = None) -> Input:
    return Input(source.spec.kind, source.key, images)


def small_graph(experiment: str, *, wants: Sequence[int] = (2, 4)) -> Graph:
    """images -> train -> freeze, sample -> evaluate, as an experiment has it."""
    images = node("images", "images", priority=5)
    train = node("train", "train", wants=wants, priority=4, latents=ref(images))
    freeze = node("freeze", "teacher", priority=2, run=ref(train, wants[0]))
    sample = node("sample", "samples", wants=wants, priority=2, run=ref(train))
    scores = node("evaluate", "scores", wants=wants, priority=1, samples=ref(sample), against=ref(images))
    return Graph(experiment, (images, train, freeze, sample, scores))


def single(experiment: str, kind: str = "images") -> Graph:
    return Graph(experiment, (node(kind, "only", wants=(2, 4) if kind in GROWING else ()),))


CLUSTER = {
    "name": "sim",
    "poll_s": 1.0,
    "lease_s": 20.0,
    "stop_lead_s": 30.0,
    "limits": {"queued": 100, "running": 100},
    "stages": {"default": {"ranks": 1, "time": "24h"}},
}


@dataclass
class World:
    """One store, one scheduler (or more), a clock, and the coordinators of some experiments."""

    folder: Path
    system: System
    now: float = 1000.0
    launcher: SimLauncher = field(default_factory=SimLauncher)
    coordinators: dict[str, Coordinator] = field(default_factory=dict)
    processes: dict[str, str] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    born: int = 0

    @property
    def store(self) -> Store:
        return Store(self.folder / "store")

    def clock(self) -> float:
        return self.now

    def cluster(self, **changes: object) -> Cluster:
        return Cluster.model_validate(CLUSTER | changes)

    def start(
        self,
        graph: Graph,
        *,
        launcher: SimLauncher | None = None,
        cluster: Cluster | None = None,
        code: str = "code1",
        accept_code: bool = False,
    ) -> Coordinator:
        """What `stx submit` does: prepare, take the lease, look at everything."""
        self.born += 1
        me = f"{self.born}:0:boot:sim"
        self.processes[graph.experiment] = me
        cluster = cluster or self.cluster()
        prepare.prepare(self.store, graph, "name: test\n")
        lease = acquire(
            self.store.experiment(graph.experiment),
            lease_s=cluster.lease_s,
            clock=self.clock,
            sleep=self.sleep,
            me=me,
            is_gone=self.dead.__contains__,
        )
        coordinator = Coordinator(
            self.store,
            graph,
            cluster,
            launcher or self.launcher,
            lease=lease,
            code=Code(code, "science", self.folder),
            python="python",
            accept_code=accept_code,
            clock=self.clock,
            load_kind=lambda name: SimKind(),
            observe=self.observe,
        )
        self.coordinators[graph.experiment] = coordinator
        coordinator.open()
        return coordinator

    def observe(self, experiment: str) -> Observer:
        directory = self.store.experiment(experiment)
        return Observer(directory, clock=self.clock, is_gone=self.dead.__contains__)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def kill(self, experiment: str) -> None:
        """kill -9 of a coordinator between two of its actions."""
        self.coordinators.pop(experiment, None)
        self.dead.add(self.processes.get(experiment, ""))

    def overtake(self, experiment: str) -> Coordinator:
        """A coordinator is stopped for so long that its lease expires and another submit may drive the experiment.
        Returns it: it may wake up at any time, and does not know.
        """
        self.free(experiment)
        return self.coordinators.pop(experiment)

    def free(self, experiment: str) -> None:
        """What `stx submit` does first where the holder's machine cannot be asked: wait until the lease is free."""
        acquire(
            self.store.experiment(experiment),
            lease_s=20.0,
            clock=self.clock,
            sleep=self.sleep,
            me=f"{self.born}:0:boot:other",
            is_gone=self.dead.__contains__,
        ).release()

    def leave(self, experiment: str) -> None:
        """A coordinator ends in good order."""
        self.coordinators.pop(experiment)._lease.release()

    def within(self, calls: int | None, act: Callable[[], object]) -> bool:
        """Let something run for so many calls into the system; False: it was killed there."""
        self.system.left = calls
        try:
            act()
        except Killed:
            return False
        finally:
            self.system.left = None
        return True

    def between(self, calls: int, act: Callable[[], object], meanwhile: Callable[[], object]) -> None:
        """Let something run, and after so many of its calls into the system let another process act in between."""
        self.system.left, self.system.meanwhile = calls, meanwhile
        try:
            act()
        finally:
            self.system.left = self.system.meanwhile = None

    def rounds(self, count: int = 1, *, seconds: float = 1.0) -> None:
        for _ in range(count):
            for coordinator in list(self.coordinators.values()):
                coordinator.round()
            self.now += seconds

    def run_jobs(self) -> None:
        """Every job starts, does all it can, and completes."""
        for job in self.launcher.live():
            self.launcher.start(job)
            if job.state is JobState.RUNNING:
                Worker(job).work()
                self.launcher.end(job, Result.COMPLETED)

    def finish(self, limit: int = 60) -> None:
        """Let everything go well until all rest."""
        for _ in range(limit):
            self.rounds(seconds=600.0)
            if all(coordinator.state.finished for coordinator in self.coordinators.values()):
                return
            self.run_jobs()
        states = {name: statuses(one) for name, one in self.coordinators.items()}
        raise AssertionError(f"not finished after {limit} rounds: {states}")

    def digests(self) -> dict[str, str]:
        found = sorted(self.store.stages.rglob("artifact.json"))
        return {str(path.relative_to(self.store.stages)): json.loads(path.read_bytes())["digest"] for path in found}

    def check(self) -> None:
        """At most one attempt of a stage is live, and at most one job works on a stage."""
        for path in self.store.stages.glob("*"):
            stage = StageDir(path)
            over = [self._over(stage.attempt(number)) for number in stage.attempts()]
            assert over.count(False) <= 1, f"{path.name}: attempts over: {over}"
            assert stage.attempts() == list(range(1, len(over) + 1)), f"{path.name}: a gap in {stage.attempts()}"
        running = [job.folder.path.parent for job in self.launcher.jobs if job.state is JobState.RUNNING]
        assert len(running) == len(set(running)), f"two jobs work on one stage: {running}"

    def _over(self, attempt: AttemptDir) -> bool:
        ranks = json.loads(attempt.intent.read_bytes())["job"]["resources"]["ranks_per_node"]
        return attempt.verdict.exists() or all(attempt.outcome(rank).exists() for rank in range(ranks))


def statuses(coordinator: Coordinator) -> dict[str, str]:
    return {vertex.node.name: stage.status.value for vertex, stage in coordinator.state.rows()}


@pytest.fixture(scope="session")
def sim() -> SimpleNamespace:
    """The helpers by name: test modules cannot import this file."""
    return SimpleNamespace(
        Worker=Worker,
        Launcher=SimLauncher,
        node=node,
        ref=ref,
        small_graph=small_graph,
        single=single,
        statuses=statuses,
        publish_result=publish_result,
        LeaseHeld=LeaseHeld,
    )


@pytest.fixture(scope="module")
def new_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], World]]:
    """Worlds whose jobs.files sees a `System`; the other modules' tests see the real one again."""
    system = System()
    real, files.os = files.os, system  # type: ignore[attr-defined, assignment]
    yield lambda: World(tmp_path_factory.mktemp("world"), system)
    files.os = real  # type: ignore[attr-defined]


@pytest.fixture
def world(new_world: Callable[[], World]) -> World:
    return new_world()
