"""What an actor says for its rank when the supervisor could not begin, nor say so. Its exit code then says why
(jobs/outcome.py), and nobody but the actor hears it: Ray, unlike Slurm, keeps no job's exit code. The word is the
actor's only where the attempt is its job's: that is claimed first, as a supervisor does it. Where nothing can be
written the driver still hears the code (jobs/launchers/ray/driver.py).
"""

from pathlib import Path

from jobs import claims, node_check, outcome
from jobs.conclusion import last_lines, log, publish, said
from jobs.files import AttemptDir
from jobs.outcome import Outcome
from jobs.placement import Placement
from jobs.spec import Result


def is_told_by(code: int | None) -> bool:
    """Whether a supervisor's exit code says why it could not begin."""
    return code in outcome.EXIT_CAUSES


def words_of(code: int, *, rank: int) -> str:
    """For people."""
    return f"the supervisor of rank {rank} could not begin, and ended with code {code}"


def say(attempt: AttemptDir, placement: Placement, *, code: int | None, printed: Path) -> None:
    """Publish the outcome of the one rank of `placement`, unless it has one; `printed`: its supervisor's log."""
    cause, rank = outcome.EXIT_CAUSES.get(code or 0), placement.only
    if code is None or cause is None or rank is None or said(attempt, rank) is not None:
        return
    try:
        elsewhere = node_check.missing_claim(attempt, tag=placement.tag, within_s=0.0)
        if elsewhere or not outcome.insist(lambda: claims.claim(attempt, placement)):
            return
    except (OSError, ValueError, TypeError) as error:
        log(f"cannot claim {attempt.path}: {error!r}")
        return
    message = f"{placement.node}: {words_of(code, rank=rank)}\n{last_lines(printed)}"
    publish(attempt, Outcome(rank, Result.FAILED, cause, message, outcome.blamed(cause, placement.node)))
