"""How an attempt ended: the outcomes of its ranks, combined, or the verdict of a coordinator about one that left none.

The ranks combine in the order OOM, NO_SPACE, NAN, NODE, SETUP, USER, HANG, LOST, YIELDED; COMPLETED only if all say so.
Outcomes beat a verdict: a worker's last word may arrive after somebody gave up waiting for it.
"""

import socket
from collections.abc import Sequence
from typing import Any

from jobs import outcome
from jobs.files import AttemptDir
from jobs.outcome import Outcome
from jobs.spec import Cause, Result
from stx import records
from stx.coordinator.events import Ended

_ORDER = {cause: place for place, cause in enumerate(Cause)}


def combine(said: Sequence[Outcome]) -> tuple[Result, Cause | None, str]:
    """One word for all ranks: the worst. The message is that of the first rank that says the worst."""
    assert said, "an attempt has at least one rank"
    failed = [one for one in said if one.cause is not None]
    if failed:
        worst = min(failed, key=lambda one: (_ORDER[one.cause or Cause.LOST], one.rank))
        return Result.FAILED, worst.cause, worst.message
    yielded = [one for one in said if one.result is Result.YIELDED]
    if yielded:
        return Result.YIELDED, None, yielded[0].message
    return Result.COMPLETED, None, ""


def ending(attempt: AttemptDir, *, number: int, ranks: int) -> Ended | None:
    """How the attempt ended; None while it is not over: over is all outcomes, or a verdict."""
    said = _said(attempt, ranks=ranks)
    if len(said) == ranks:
        result, cause, message = combine(said)
        return Ended(number, result.value, cause.value if cause else None, message)
    verdict = records.find(attempt.verdict)
    if verdict is None:
        return None
    with records.understood(attempt.verdict):
        return Ended(number, verdict["result"], verdict["cause"], verdict["message"])


def _said(attempt: AttemptDir, *, ranks: int) -> list[Outcome]:
    """The outcomes of the ranks that spoke."""
    found = []
    for rank in range(ranks):
        with records.understood(attempt.outcome(rank)):
            one = outcome.read(attempt, rank)
        if one is not None:
            found.append(one)
    return found


def publish_verdict(attempt: AttemptDir, *, ranks: int, cause: str, message: str, experiment: str) -> None:
    """Conclude about an attempt whose job is gone. Ranks that spoke count; the silent ones are lost, or had been asked
    to leave (stop.json), which is nobody's failure. A HANG is the coordinator's own word.
    """
    said = _said(attempt, ranks=ranks)
    if len(said) == ranks:
        return
    asked = attempt.stop.exists() and cause == Cause.LOST
    if asked:
        said.append(Outcome(ranks, Result.YIELDED, message="asked to leave, and left no outcome"))
    else:
        said.append(Outcome(ranks, Result.FAILED, Cause(cause), message))
    result, worst, words = combine(said)
    record: dict[str, Any] = {"result": result.value, "cause": worst.value if worst else None, "message": words}
    records.publish(attempt.verdict, record | {"experiment": experiment, "host": socket.gethostname()})
