"""What became of the attempts of a stage, and the last words of one that failed; for people. Reads only.

A yield has a reason that no file spells out; the files of the attempt tell it:

    stopped      we asked (stop.json): Ctrl-C, cancel
    time limit   it left as late as its own time limit makes it leave
    preempted    somebody else asked: on a cluster that is the site, which needs the nodes; locally it is `yielded`

Times are differences of modification times in one directory, so they come from one clock.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from jobs import files
from jobs.files import AttemptDir
from jobs.outcome import Outcome
from jobs.spec import Cause, Result
from stx import records
from stx.endings import ending, num_ranks, spoken
from stx.errors import StoreError
from stx.paths import StageDir

EARLY_S = 90.0  # Slurm may give the sign for the time limit a minute before it is due
LOG_BYTES = 65536
FOR_ANOTHER = "ended because rank"  # jobs/conclusion.py, of those that were ended for another's failure
T = TypeVar("T")


class Earlier:
    """How attempts ended, each looked at until it is over and never again."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], str] = {}

    def causes(self, stage: StageDir) -> dict[str, int]:
        """The attempts that did not finish the stage, counted by why: {"preempted": 1, "NODE": 1}."""
        none: list[int] = []
        numbers = _readable(stage.attempts, otherwise=none)
        return dict(Counter(word for number in numbers if (word := self._word(stage, number))))

    def _word(self, stage: StageDir, number: int) -> str:
        known = self._known.get((stage.path.name, number))
        if known is not None:
            return known
        found = _readable(lambda: ended_for(stage.attempt(number), number=number), otherwise=None)
        return "" if found is None else self._known.setdefault((stage.path.name, number), found)


def ended_for(attempt: AttemptDir, *, number: int) -> str | None:
    """Why an attempt ended in one word; "" if it completed, None while it is not over."""
    intent = records.read(attempt.intent)
    with records.understood(attempt.intent):
        ranks = num_ranks(intent)
    over = ending(attempt, number=number, ranks=ranks)
    if over is None:
        return None
    if over.result == Result.YIELDED:
        return _yielded(attempt, intent)
    return "preempted" if over.cause == Cause.PREEMPT else (over.cause or "")


def _yielded(attempt: AttemptDir, intent: Mapping[str, Any]) -> str:
    if attempt.stop.exists():
        return "stopped"
    with records.understood(attempt.intent):
        limit, lead = float(intent["job"]["resources"]["time_s"]), float(intent["job"]["stop_lead_s"])
        local = str(intent["launcher"]).startswith("local:")
    took = attempt.outcome(0).stat().st_mtime - attempt.started.stat().st_mtime
    if took >= limit - lead - min(EARLY_S, limit / 10):
        return "time limit"
    return "yielded" if local else "preempted"


def log_of(attempt: AttemptDir) -> Path | None:
    """What to read of an attempt that failed: the log of the first rank that failed by itself, else of the first rank;
    of ranks that never started what their supervisor printed. None if nothing was printed.
    """
    nobody: list[Outcome] = []
    said = _readable(lambda: spoken(attempt, ranks=num_ranks(records.read(attempt.intent))), otherwise=nobody)
    failed = sorted((one.message.startswith(FOR_ANOTHER), one.rank) for one in said if one.cause)
    wanted = [attempt.log(rank) for _, rank in failed] + attempt.logs()
    return next((path for path in wanted if path.exists()), None) or supervisor_log(attempt)


def supervisor_log(attempt: AttemptDir, *, rank: int = 0) -> Path | None:
    """What the supervisor of a rank printed; the newest, should several jobs have come to this attempt."""
    if attempt.supervisor_log.exists():
        return attempt.supervisor_log
    found = sorted(attempt.scheduler_logs.glob("*.out"), key=_modified)
    own = [path for path in found if path.name.endswith(f"_{rank}_log.out")] or found
    return own[-1] if own else None


def last_lines(path: Path, count: int) -> list[str]:
    """The end of a log."""
    text = _readable(lambda: files.tail(path, LOG_BYTES), otherwise=b"").decode(errors="replace")
    return text.rstrip().splitlines()[-count:]


def _modified(path: Path) -> float:
    return _readable(lambda: path.stat().st_mtime, otherwise=0.0)


def _readable(read: Callable[[], T], *, otherwise: T) -> T:
    """What others write just now, or a disk has damaged, says nothing."""
    with contextlib.suppress(StoreError, OSError, ValueError):
        return read()
    return otherwise
