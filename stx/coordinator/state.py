"""What a coordinator knows, as a value; transitions.py makes the next one of it. Every stage has one of these states:

    DONE        what this experiment wants of it is published, whoever made it
    RUNNING     an attempt of this experiment is live (claimed, queued or running)
    ELSEWHERE   an attempt of another experiment is live, or one of ours on a cluster out of reach from here
    CANCELLED   a person cancelled it
    FAILED      its budget is spent; a retry starts it again
    BLOCKED     something it needs FAILED, is BLOCKED or CANCELLED, or will never be made
    WAITING     something it needs is not there yet
    DELAYED     may run again when its delay is over
    READY       starts as soon as the limits allow

The first that applies, from the top. Nothing here is a dictionary of 10,000 entries that every event would copy.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from jobs.spec import Cause, JobState
from stx.coordinator.events import NOTHING, Facts, Live, Policy
from stx.coordinator.table import Table
from stx.coordinator.topology import Topology, Vertex
from stx.spec import Graph


class Status(StrEnum):
    """What a stage is doing, see the module's docstring."""

    WAITING = "WAITING"
    READY = "READY"
    RUNNING = "RUNNING"
    ELSEWHERE = "ELSEWHERE"
    DELAYED = "DELAYED"
    DONE = "DONE"
    FAILED = "FAILED"
    BLOCKED = "BLOCKED"
    CANCELLED = "CANCELLED"


TERMINAL = frozenset({Status.DONE, Status.FAILED, Status.BLOCKED, Status.CANCELLED})
BROKEN = frozenset({Status.FAILED, Status.BLOCKED, Status.CANCELLED})


@dataclass(frozen=True)
class Watch:
    """What we know of a live attempt besides the facts.

    seen, misses   the scheduler's last word, and how often in a row the job was gone
    detail         its own words: why a job waits, where it runs
    nodes, start   where it runs; when it may start
    cause, failed  why it ended and which nodes failed, as far as the scheduler knows
    sought         how often no job was found for an attempt without a handle
    full           why the store could not be written when the job was gone; nothing if it could
    ending         why it was asked to end ("stop", "hang"), and when it is cancelled outright
    unseen_s       since when its heartbeat stands still; 0: it moves
    """

    number: int
    seen: JobState | None = None
    misses: int = 0
    detail: str = ""
    nodes: str = ""
    start: str = ""
    cause: Cause | None = None
    failed: tuple[str, ...] = ()
    sought: int = 0
    full: str = ""
    ending: str = ""
    cancel_at: float | None = None
    unseen_s: float = 0.0


@dataclass(frozen=True)
class Stage:
    """One vertex of the plan. `why` is for people; `starting` is the attempt whose Start is not yet answered."""

    status: Status = Status.WAITING
    why: str = ""
    facts: Facts = NOTHING
    watch: Watch | None = None
    starting: int = 0
    marked: bool = False
    cancelled: bool = False
    due: float | None = None
    due_after: int = 0
    delay_s: float = 0.0

    @property
    def seen(self) -> JobState | None:
        """The scheduler's word of the live attempt."""
        return self.watch.seen if self.watch else None

    @property
    def unseen_s(self) -> float:
        """Since when the heartbeat of the live attempt stands still."""
        return self.watch.unseen_s if self.watch else 0.0


@dataclass(frozen=True)
class State:
    """Everything a coordinator knows. `live`, `delayed` and `counts` follow from `stages`: nothing has to scan them."""

    plan: Topology
    stages: Table[Stage]
    counts: Mapping[Status, int]
    policy: Policy
    live: frozenset[int] = frozenset()
    delayed: frozenset[int] = frozenset()
    token: int = 0
    clock: str = ""
    stopping: bool = False
    leaving: bool = False
    full: str = ""
    trouble: str = ""
    throttled: str = ""
    error: str = ""
    commands: frozenset[str] = frozenset()

    @property
    def paused(self) -> str:
        """Why nothing is started; nothing while stages may start."""
        return self.full or self.throttled or self.trouble

    def stage(self, key: str) -> Stage:
        """The stage of a key of the graph."""
        return self.stages[self.plan.index[key]]

    def rows(self) -> Iterator[tuple[Vertex, Stage]]:
        """Every vertex with its stage, inputs first."""
        for index in self.plan.order:
            yield self.plan.vertices[index], self.stages[index]

    def is_mine(self, live: Live) -> bool:
        """Whether this experiment claimed the attempt, as this user and on a cluster that can be reached from here."""
        return live.experiment == self.plan.experiment and live.reachable and not live.user

    def held(self) -> Iterator[tuple[int, Stage, Live]]:
        """Live attempts of ours that have a job."""
        for index in sorted(self.live):
            stage = self.stages[index]
            live = stage.facts.live
            if live is not None and self.is_mine(live) and live.job_id is not None:
                yield index, stage, live

    @property
    def finished(self) -> bool:
        """Nothing more will happen: all stages rest, and no attempt of ours is still leaving."""
        if sum(self.counts.get(status, 0) for status in TERMINAL) < len(self.stages):
            return False
        return all(live.shared for _, _, live in self.held())

    @property
    def exit_code(self) -> int:
        """0 when all stages are done, else 3."""
        return 0 if self.counts.get(Status.DONE, 0) == len(self.stages) else 3


_NO_POLICY = Policy(retries={}, backoff_s=(), queued=0, running=0, stop_lead_s=0.0)


def new(graph: Graph) -> State:
    """The state before the first event."""
    plan = Topology.of(graph)
    stages = Table.of(Stage() for _ in plan.vertices)
    return State(plan=plan, stages=stages, counts={Status.WAITING: len(stages)}, policy=_NO_POLICY)


def evolve(state: State, **changes: object) -> State:
    """dataclasses.replace, or the very same state when nothing differs."""
    if all(getattr(state, name) == value for name, value in changes.items()):
        return state
    return replace(state, **changes)  # type: ignore[arg-type]
