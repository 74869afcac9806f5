"""What the state machine is told and what it asks for. Events go into the journal as JSON, actions never do.

Almost all truth lies in the directories: `Facts` is what they say of one stage, and a stage's policy is a function of
its facts. So a coordinator that starts anew needs the journal only for what no directory holds (what was cancelled,
which commands were carried out). Time enters as `now`: monotonic seconds of the coordinator that wrote the event;
`Opened.clock` names that clock.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from jobs import typed
from jobs.spec import Cause, JobState
from stx.endings import Ended


@dataclass(frozen=True)
class Live:
    """An attempt that is not over.

    reachable  its launcher is ours, so it may be polled and judged from here
    job_id     None: claimed, but no handle was left (yet)
    orphan     no handle, and whoever should have left one is gone
    stopped    it was asked to yield
    shared     other experiments that want the stage
    user       the other user who claimed it; nothing: we did
    """

    number: int
    experiment: str
    host: str
    launcher: str
    reachable: bool
    job_id: str | None = None
    orphan: bool = False
    stopped: bool = False
    shared: tuple[str, ...] = ()
    user: str = ""


@dataclass(frozen=True)
class Facts:
    """What the directories say of one stage.

    parts     published images-seen counts of a growing kind; `artifact`: the result of the others
    last      the highest attempt claimed (0: none); exactly one of `live` and `ended` speaks of it
    spent     attempts since the last retry, by the cause they failed for; USER only under the code that is used now
    idle      how many of the last attempts in a row ended like the last one and without progress
    """

    parts: tuple[int, ...] = ()
    artifact: bool = False
    last: int = 0
    live: Live | None = None
    ended: Ended | None = None
    spent: Mapping[str, int] = field(default_factory=dict)
    idle: int = 0


NOTHING = Facts()


@dataclass(frozen=True)
class Policy:
    """The numbers of the cluster file that the state machine needs. `retries` is by cause, in lower case; `apart`: the
    kinds whose jobs wait for GPUs, where they are counted apart from those that do not.
    """

    retries: Mapping[str, int]
    backoff_s: tuple[float, ...]
    queued: int
    running: int
    stop_lead_s: float
    apart: tuple[str, ...] = ()


@dataclass(frozen=True)
class Opened:
    """A coordinator took the lease and looked at every stage; `facts` of those that are not as the journal has them.

    before   the journal as its replay found it: the token of its last file, and how many bytes of it had been read
    """

    now: float
    clock: str
    token: int
    policy: Policy
    facts: Mapping[str, Facts]
    before: tuple[int, int] | None = None


@dataclass(frozen=True)
class Surveyed:
    """One stage's directories were read again."""

    now: float
    key: str
    facts: Facts


@dataclass(frozen=True)
class Observed:
    """The scheduler's word for a live attempt, as jobs.spec.Observation has it."""

    now: float
    key: str
    number: int
    state: JobState
    detail: str = ""
    cause: Cause | None = None
    nodes: str = ""
    start: str = ""
    failed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sought:
    """No job bears the tag of an attempt that left no handle."""

    now: float
    key: str
    number: int


@dataclass(frozen=True)
class Unseen:
    """The heartbeat of a live attempt stands still since `seconds` (0: it moves again). Shown, no more."""

    now: float
    key: str
    number: int
    seconds: float


@dataclass(frozen=True)
class Hung:
    """The heartbeat stood still for too long while everything around it worked."""

    now: float
    key: str
    number: int
    seconds: float


@dataclass(frozen=True)
class Ordered:
    """A person's command: cancel, retry or leave. `command` is its name in the inbox, so that it counts once."""

    now: float
    command: str
    verb: str
    keys: tuple[str, ...] = ()
    take_over: bool = False


@dataclass(frozen=True)
class Interrupted:
    """Ctrl-C: ask every attempt of ours to save and yield, start nothing more."""

    now: float


@dataclass(frozen=True)
class Paused:
    """The store cannot be written (a full disk): nothing is started until it can. An empty reason: it can again."""

    now: float
    reason: str


@dataclass(frozen=True)
class Troubled:
    """The scheduler did not answer several times in a row. An empty message: it answers again."""

    now: float
    message: str


@dataclass(frozen=True)
class Throttled:
    """The scheduler takes no more jobs for now, and nothing is wrong with ours. An empty reason: it does again."""

    now: float
    reason: str


@dataclass(frozen=True)
class Crashed:
    """An error ended the coordinator that writes this."""

    now: float
    error: str


@dataclass(frozen=True)
class Tick:
    """Time passes: delays end, ready stages start, attempts that do not leave are ended."""

    now: float


Event = (
    Opened
    | Surveyed
    | Observed
    | Sought
    | Unseen
    | Hung
    | Ordered
    | Interrupted
    | Paused
    | Troubled
    | Throttled
    | Crashed
    | Tick
)
_KINDS: Mapping[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        Opened,
        Surveyed,
        Observed,
        Sought,
        Unseen,
        Hung,
        Ordered,
        Interrupted,
        Paused,
        Troubled,
        Throttled,
        Crashed,
        Tick,
    )
}


def dump(event: Event) -> dict[str, Any]:
    """The event's JSON."""
    return {"event": type(event).__name__} | asdict(event)


def parse(record: Mapping[str, Any]) -> Event:
    """The inverse of `dump`; ValueError or KeyError for what is none."""
    values = {name: value for name, value in record.items() if name != "event"}
    return typed.build(_KINDS[record["event"]], values)


@dataclass(frozen=True)
class Want:
    """Publish stage.json and put the own mark."""

    key: str


@dataclass(frozen=True)
class Start:
    """Claim attempt `number` and submit it. A Surveyed of the stage answers."""

    key: str
    number: int


@dataclass(frozen=True)
class Adopt:
    """Look for the job of an attempt without a handle."""

    key: str
    number: int


@dataclass(frozen=True)
class Resubmit:
    """No job bears its tag: submit the same attempt."""

    key: str
    number: int


@dataclass(frozen=True)
class Judge:
    """The job is gone: unless all outcomes are there after all, publish a verdict of this cause. `nodes`: to blame."""

    key: str
    number: int
    cause: str
    message: str
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stop:
    """Ask an attempt to save and yield."""

    key: str
    number: int


@dataclass(frozen=True)
class Cancel:
    """End an attempt's job now."""

    key: str
    number: int


@dataclass(frozen=True)
class Unmark:
    """Remove the own mark: this experiment no longer wants the stage."""

    key: str


@dataclass(frozen=True)
class Forgive:
    """Record a retry after attempt `number`: budgets count from there."""

    key: str
    number: int


Action = Want | Start | Adopt | Resubmit | Judge | Stop | Cancel | Unmark | Forgive
