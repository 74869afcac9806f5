"""What a supervisor says for ranks that cannot: a SETUP outcome for those that never came alive, HANG and OOM for those
that were ended so, one rank's failure as the outcome of those that were ended for it. Nothing for a rank that was
alive and left no outcome: the coordinator judges that. Standard library only.
"""

import contextlib
import signal
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jobs import files, outcome
from jobs.files import AttemptDir
from jobs.hangs import Hang
from jobs.outcome import Outcome
from jobs.spec import Cause, Result

LOG_LINES, LOG_BYTES = 20, 65536


@dataclass
class Rank:
    """One child: `code` is None while it runs; negative for a signal, as in subprocess."""

    number: int
    pid: int
    code: int | None = None


@dataclass(frozen=True)
class Ending:
    """Why the ranks of a job have ended. `culprit`: the rank for whose end the others were ended. `told`: the time was
    over, or somebody cancelled. `oom_kills`: what the kernel has killed in our cgroup since the job began. `node` as in
    jobs/placement.py.
    """

    start_error: Outcome | None
    hang: Hang | None
    culprit: Rank | None
    told: bool
    oom_kills: int
    node: str = ""


def conclude(attempt: AttemptDir, ranks: Sequence[Rank], *, of: Collection[int], ending: Ending) -> None:
    """Say what the ranks cannot say any more; `of` these, also those that were never started."""
    failure = None if ending.culprit is None else _ended_by_itself(attempt, ending.culprit, ending)
    for place, number in enumerate(of):
        if said(attempt, number) is not None:
            continue
        if ending.start_error:
            publish(attempt, replace(ending.start_error, rank=number))
        elif failure is not None and failure.result is Result.FAILED:
            message = f"ended because rank {failure.rank} failed: {failure.message}"
            publish(attempt, Outcome(number, Result.FAILED, failure.cause, message))
        elif ending.culprit is None and not ending.told:
            _speak_for(attempt, ranks[place], node=ending.node)


def _ended_by_itself(attempt: AttemptDir, rank: Rank, ending: Ending) -> Outcome | None:
    """What the rank that ended the job has to say; a hang, a kill for want of memory and a SETUP failure are said for
    it. Whom we killed ourselves, after the job was told to end or could not start, is no culprit of that.
    """
    if ending.hang is not None:
        publish(attempt, Outcome(rank.number, Result.FAILED, Cause.HANG, ending.hang.message))
    elif not ending.told and ending.start_error is None and rank.code == -signal.SIGKILL and ending.oom_kills:
        publish(attempt, Outcome(rank.number, Result.FAILED, Cause.OOM, _oom(rank, ending.oom_kills)))
    elif not ending.told:
        _speak_for(attempt, rank, node=ending.node)
    return said(attempt, rank.number)


def _oom(rank: Rank, kills: int) -> str:
    return (
        f"rank {rank.number} was killed (SIGKILL) by the kernel for want of memory: oom_kill in memory.events of this "
        f"job's cgroup rose by {kills} while it ran"
    )


def _speak_for(attempt: AttemptDir, rank: Rank, *, node: str) -> None:
    """The outcome of a rank that ended before it was ready, or whose exit code says why it could not write one."""
    if said(attempt, rank.number) is not None:
        return
    cause = outcome.EXIT_CAUSES.get(rank.code or 0)
    if cause is None and attempt.alive(rank.number).exists():
        return
    when = "before it was ready" if cause is None else "and could not write its outcome"
    message = f"rank {rank.number} ended with code {rank.code} {when}\n{last_lines(attempt.log(rank.number))}"
    info = outcome.blamed(cause, node)
    publish(attempt, Outcome(rank.number, Result.FAILED, cause or Cause.SETUP, message, info))


def last_lines(path: Path) -> str:
    """The end of a log, for an error message."""
    try:
        text = files.tail(path, LOG_BYTES).decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-LOG_LINES:])


def setup_failure(rank: int, message: str, error: Exception, *, node: str) -> Outcome:
    """SETUP, unless it was the file system that failed."""
    cause = outcome.cause_of(error.errno if isinstance(error, OSError) else None) or Cause.SETUP
    return Outcome(rank, Result.FAILED, cause, message, outcome.blamed(cause, node))


def said(attempt: AttemptDir, rank: int) -> Outcome | None:
    """What a rank said, as far as that can be read: what the disk does must not keep us from ending the others."""
    try:
        return outcome.read(attempt, rank)
    except (OSError, ValueError, KeyError, TypeError) as error:
        log(f"{attempt.outcome(rank)} cannot be read: {error!r}")
        return None


def publish(attempt: AttemptDir, word: Outcome) -> None:
    """A full disk must not keep us from reaping: the coordinator then sees an attempt without an outcome."""
    try:
        outcome.publish(attempt, word)
    except OSError as error:
        log(f"cannot write an outcome rank={word.rank}: {error}")


def log(text: str) -> None:
    """One line in supervisor.log, where standard error goes. A full disk keeps nobody from the work."""
    with contextlib.suppress(OSError):
        files.write_all(2, f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}\n".encode())
