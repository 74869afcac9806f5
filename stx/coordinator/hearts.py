"""Heartbeats of live attempts, watched on our own monotonic clock: who stands still, and who has hung.

A heart that stands still is shown, no more. It is taken for a hang only when all of this holds: the scheduler says
RUNNING, the counter stood still for the phase's limit, our own writes to the store succeeded all that time, and fewer
than half of the attempts that run stand still. Otherwise it is the store or the network that fails, and nobody is
killed for that.

A look that comes late says the same of the time before it: this process hung on the store, or did not run at all, and
the workers' beats may have hung as well.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from jobs.files import AttemptDir
from stx import records
from stx.coordinator.events import Hung, Unseen
from stx.errors import StoreError

BEHIND_S = 60.0  # beyond hang_after_s: a rank's watchdog and its supervisor come first, and leave stacks
SHOWN_AFTER = 0.25  # of the limit
LATE_AFTER = 0.25  # of the limit, beyond the time that lies between two looks anyway


@dataclass(frozen=True)
class Patient:
    """A live attempt of ours; `running`: the scheduler says so."""

    key: str
    number: int
    folder: AttemptDir
    running: bool


@dataclass(frozen=True)
class Pulse:
    """The last beat that was new, and when we saw it. `shown`: Unseen was said; `hung`: Hung was said."""

    counter: int
    phase: str
    since: float
    shown: bool = False
    hung: bool = False


class Hearts:
    """`limits` in seconds, by phase; a look comes every `poll_s`."""

    def __init__(self, limits: Mapping[str, float], *, poll_s: float, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._poll_s = poll_s
        self._clock = clock
        self._looked = clock()
        self._pulses: dict[tuple[str, int], Pulse] = {}

    def look(self, patients: Sequence[Patient], *, well: bool) -> list[Unseen | Hung]:
        """What changed since the last look. `well`: our own writes to the store succeeded since then."""
        now = self._clock()
        late_s = now - self._looked - self._poll_s
        self._looked, old = now, self._pulses
        self._pulses = {(one.key, one.number): _pulse(one, old.get((one.key, one.number)), now=now) for one in patients}
        limits = {name: self._limits.get(pulse.phase, self._limits["other"]) for name, pulse in self._pulses.items()}
        for name, pulse in self._pulses.items():
            if not well or late_s >= limits[name] * LATE_AFTER:
                self._pulses[name] = replace(pulse, since=now)
        running = sum(one.running for one in patients)
        stale = {name for name, pulse in self._pulses.items() if now - pulse.since >= limits[name]}
        said: list[Unseen | Hung] = []
        for name, pulse in self._pulses.items():
            still = now - pulse.since
            shown = still >= limits[name] * SHOWN_AFTER
            hung = name in stale and 2 * len(stale) < running
            if hung and not pulse.hung:
                said.append(Hung(now, *name, seconds=still))
            elif shown != pulse.shown:
                said.append(Unseen(now, *name, seconds=still if shown else 0.0))
            self._pulses[name] = replace(pulse, shown=shown, hung=hung or pulse.hung)
        return said


def _pulse(one: Patient, old: Pulse | None, *, now: float) -> Pulse:
    counter, phase = _beat(one.folder)
    if old is None:
        return Pulse(counter, phase, now)
    if counter != old.counter or not one.running:
        return replace(old, counter=counter, phase=phase, since=now)
    return old


def _beat(folder: AttemptDir) -> tuple[int, str]:
    """The counter and the phase; an attempt that has not beaten yet is starting."""
    try:
        record = records.find(folder.heartbeat)
        with records.understood(folder.heartbeat):
            return (int(record["counter"]), str(record["phase"])) if record else (-1, "start")
    except (OSError, StoreError):
        return -1, "start"  # unreadable is unseen
