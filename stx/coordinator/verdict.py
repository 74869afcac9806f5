"""A coordinator's conclusion about an attempt whose job is gone and that left no outcome."""

import socket
from typing import Any

from jobs.files import AttemptDir
from jobs.outcome import Outcome
from jobs.spec import Cause, Result
from stx import records
from stx.endings import combine, spoken


def bar(attempt: AttemptDir, *, job_id: str | None, experiment: str) -> bool:
    """See to it that no job begins the attempt any more. A scheduler may have accepted one and told nobody, or show it
    late: it finds a started.json that is not its own, and leaves. False: another job than `job_id` has begun it.
    """
    record = {"job_id": None, "barred_by": experiment, "host": socket.gethostname()}
    if records.publish(attempt.started, record):
        return True
    with records.understood(attempt.started):
        return records.read(attempt.started)["job_id"] in (None, job_id)


def publish_verdict(attempt: AttemptDir, *, ranks: int, cause: str, message: str, experiment: str) -> None:
    """Conclude about an attempt whose job is gone. Ranks that spoke count; the silent ones are lost, or had been asked
    to leave (stop.json), or were preempted before they could save, which is nobody's failure. A HANG is the
    coordinator's own word.
    """
    said = spoken(attempt, ranks=ranks)
    if len(said) == ranks:
        return
    asked = attempt.stop.exists() and cause in (Cause.LOST, Cause.NO_SPACE, Cause.TIMEOUT)
    if cause == Cause.PREEMPT:
        said.append(Outcome(ranks, Result.YIELDED, message=f"preempted before it could save: {message}"))
    elif asked:
        said.append(Outcome(ranks, Result.YIELDED, message="asked to leave, and left no outcome"))
    else:
        said.append(Outcome(ranks, Result.FAILED, Cause(cause), message))
    result, worst, words = combine(said)
    record: dict[str, Any] = {"result": result.value, "cause": worst.value if worst else None, "message": words}
    records.publish(attempt.verdict, record | {"experiment": experiment, "host": socket.gethostname()})
