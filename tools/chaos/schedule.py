"""What goes wrong in one run, and when: pure, from a seed.

A schedule is a list of faults by the second (since the run began) at which each is due. Which process, file or byte a
fault meets is drawn as a number in [0, 1) (`pick`), so that the same seed makes the same choices among whatever is
there at that moment. The seconds at which a machine reaches a step are its own: a seed repeats a schedule, not a run.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

KINDS: Mapping[str, str] = {
    "kill": "SIGKILL of a random rank, supervisor (jobs.exec) or coordinator",
    "term": "SIGTERM of one: save and leave",
    "stop": "SIGSTOP of one for longer than hang_after_s of step and save, then SIGCONT",
    "point": "a kill before, after or inside a write, fsync, rename or link",
    "enospc": "a disk or a quota that is full for some operations of one process",
    "full": "a disk that is full for everybody, for some seconds",
    "eio": "an operation that fails with EIO, ESTALE or EROFS",
    "short": "writes that take only a part of what they are given",
    "slow": "one operation that takes seconds",
    "clock": "a wall clock that jumps by minutes, forwards or back",
    "stall": "a store that blocks everybody for longer than hang_after_s: nothing healthy may be cancelled",
    "scratch": "a truncated or bit-flipped file that must be survived: the newest checkpoint, files aside, heartbeat, "
    "metrics, the journal's last line",
    "published": "a truncated or bit-flipped result or record: must be refused by its name, then it is restored",
    "twins": "two submits of the file at the same moment",
    "share": "a second experiment that wants the same stages, at the same time",
    "preempt": "jobs of a higher partition take one to four nodes away for seconds (needs --devcluster)",
    "node": "a node dies with all that runs on it, and is back after half a minute (needs --devcluster)",
}
SITE = ("preempt", "node")
# How often each kind is drawn. Those that block for a while are drawn less.
_WEIGHTS = {
    "preempt": 5,
    "node": 2,
    "kill": 4,
    "point": 7,
    "stop": 1,
    "stall": 0.4,
    "full": 0.5,
    "scratch": 2,
    "published": 1.5,
    "share": 0.5,
}
_TICKET: Mapping[str, Sequence[str]] = {
    "point": ("kill",),
    "enospc": ("enospc", "edquot"),
    "eio": ("eio", "estale", "erofs"),
    "short": ("short",),
    "slow": ("stall",),
    "clock": ("clock",),
}

# The most fault points that a life of each program passes on micro stages (a larger number would hardly ever fire), and
# those of them that a worker passes on checkpoints and results.
POINTS: Mapping[str, int] = {"stx.worker run": 250, "jobs.exec": 20, "stx.cli submit": 1000}
SAVE_POINTS = 60
IN_SAVE = r"/(checkpoints|milestones|parts|payload)/|artifact\.json"
_PROGRAM_WEIGHTS = (7, 1, 2)
ROLES = ("rank", "supervisor", "coordinator")
_ROLE_WEIGHTS = (6, 2, 3)
SCRATCH = ("checkpoint", "checkpoint", "aside", "heartbeat", "metrics", "journal")
PUBLISHED = ("payload", "payload", "artifact", "record")


@dataclass(frozen=True)
class Limits:
    """What the cluster file waits for, in seconds: `work` of step and save, `every` of all phases."""

    work: float
    every: float


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong at `at` seconds; the subclasses say what."""

    at: float
    kind: str
    pick: float


@dataclass(frozen=True)
class Signal(Fault):
    """kill, term or stop of a process of this role; a stopped one goes on after `seconds`."""

    role: str
    seconds: float


@dataclass(frozen=True)
class Ticket(Fault):
    """What faults/sitecustomize.py does in the next process whose command line holds `program`; `in_save`: only its
    operations on checkpoints and results count.
    """

    program: str
    fault: str
    point: int
    in_save: bool
    seconds: float
    count: int

    def content(self, number: int) -> dict[str, object]:
        """Its JSON. `number` and `kind` come back in faults.jsonl."""
        content: dict[str, object] = {"number": number, "kind": self.kind, "program": self.program}
        content |= {"point": self.point, "fault": self.fault, "seconds": self.seconds, "count": self.count}
        return content | ({"match": IN_SAVE} if self.in_save else {})


@dataclass(frozen=True)
class Store(Fault):
    """stall or full: the store blocks, or has no space, for `seconds`."""

    seconds: float


@dataclass(frozen=True)
class Damage(Fault):
    """A file of the class `target` is truncated or gets another bit at the relative place `where`."""

    target: str
    truncate: bool
    where: float


@dataclass(frozen=True)
class Site(Fault):
    """preempt or node: `nodes` of the cluster are taken away, or one is dead, for `seconds`."""

    seconds: float
    nodes: int


@dataclass(frozen=True)
class Second(Fault):
    """Another coordinator: twins or share."""


def schedule(seed: int, *, kinds: Sequence[str], faults: int, every_s: float, limits: Limits) -> list[Fault]:
    """`faults` faults of these kinds, `every_s` seconds apart on average, in order of time."""
    chooser = random.Random(seed)
    weights = [_WEIGHTS.get(kind, 1) for kind in kinds]
    drawn, now = [], 0.0
    for kind in chooser.choices(kinds, weights=weights, k=faults):
        now += chooser.uniform(0.2, 1.8) * every_s
        drawn.append(_fault(kind, now, chooser=chooser, limits=limits))
    return sorted(drawn, key=lambda fault: fault.at)


def _fault(kind: str, now: float, *, chooser: random.Random, limits: Limits) -> Fault:
    pick = chooser.random()
    if kind in ("kill", "term", "stop"):
        role = chooser.choices(ROLES, weights=_ROLE_WEIGHTS)[0]
        return Signal(now, kind, pick, role, limits.work + chooser.uniform(1, 3))
    if kind in _TICKET:
        return _ticket(kind, now, pick, chooser=chooser, limits=limits)
    if kind == "stall":
        longest = limits.every if chooser.random() < 0.2 else limits.work
        return Store(now, kind, pick, longest + chooser.uniform(1, 3))
    if kind == "full":
        return Store(now, kind, pick, chooser.uniform(1, 6))
    if kind in SITE:
        seconds = chooser.uniform(1, 4) if kind == "preempt" else chooser.uniform(25, 40)
        return Site(now, kind, pick, seconds, chooser.randint(1, 4))
    if kind in ("scratch", "published"):
        target = chooser.choice(SCRATCH if kind == "scratch" else PUBLISHED)
        return Damage(now, kind, pick, target, truncate=chooser.random() < 0.5, where=chooser.random())
    # Half of the second coordinators are there from the first moment, when both make the store.
    return Second(now if chooser.random() < 0.5 else 0.0, kind, pick)


def _ticket(kind: str, now: float, pick: float, *, chooser: random.Random, limits: Limits) -> Ticket:
    program = chooser.choices(list(POINTS), weights=_PROGRAM_WEIGHTS)[0]
    in_save = program == "stx.worker run" and chooser.random() < 0.5
    last = SAVE_POINTS if in_save else POINTS[program]
    # Early points are passed by every process, late ones by long lives only: each order of magnitude is as likely.
    point = round(last ** chooser.random())
    seconds, count = 0.0, 1
    if kind == "slow":
        seconds = chooser.uniform(0.1, 0.6) * limits.work
    elif kind == "clock":
        seconds = chooser.choice((-1, 1)) * chooser.uniform(60, 7200)
    elif kind in ("enospc", "short"):
        count = chooser.randint(1, 12)
    # A process takes its ticket when it starts, so those for the coordinator lie there before the first one does.
    at = 0.0 if program == "stx.cli submit" else max(0.0, now - 4 * pick)
    return Ticket(at, kind, pick, program, chooser.choice(_TICKET[kind]), point, in_save, seconds, count)
