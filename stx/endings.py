"""When an attempt is over, and how it ended: the outcomes of its ranks, combined, or the verdict of a coordinator about
one that left none.

The ranks combine in the order OOM, NO_SPACE, NAN, NODE, SETUP, USER, HANG, LOST, YIELDED; COMPLETED only if all say so.
Outcomes beat a verdict: a worker's last word may arrive after somebody gave up waiting for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs import outcome, typed
from jobs.files import AttemptDir
from jobs.outcome import Outcome
from jobs.spec import Cause, Resources, Result
from stx import records
from stx.paths import StageDir

MAX_RANKS = 1 << 20
_ORDER = {cause: place for place, cause in enumerate(Cause)}


@dataclass(frozen=True)
class Ended:
    """How an attempt ended: all ranks' outcomes combined, or the verdict."""

    number: int
    result: str
    cause: str | None = None
    message: str = ""


@dataclass(frozen=True)
class Claim:
    """An attempt as its intent has it: who claimed it, where, for which launcher, running which sources."""

    number: int
    experiment: str
    host: str
    code: str
    launcher: str
    tag: str


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
    said = spoken(attempt, ranks=ranks)
    if len(said) == ranks:
        result, cause, message = combine(said)
        return Ended(number, result.value, cause.value if cause else None, message)
    verdict = records.find(attempt.verdict)
    if verdict is None:
        return None
    with records.understood(attempt.verdict):
        result, cause = typed.matching(Result, verdict["result"]), typed.matching(Cause | None, verdict["cause"])
        return Ended(number, result, cause, typed.matching(str, verdict["message"]))


def spoken(attempt: AttemptDir, *, ranks: int) -> list[Outcome]:
    """The outcomes of the ranks that spoke."""
    found = []
    for rank in range(ranks):
        with records.understood(attempt.outcome(rank)):
            one = outcome.read(attempt, rank)
        if one is not None:
            found.append(one)
    return found


def num_ranks(intent: Mapping[str, Any]) -> int:
    """How many outcomes the attempt will leave."""
    ranks = typed.build(Resources, intent["job"]["resources"]).ranks
    if not 1 <= ranks <= MAX_RANKS:
        raise ValueError(f"a job of {ranks} ranks")
    return ranks


def claim_of(intent: Mapping[str, Any]) -> Claim:
    """Who claimed an attempt, by its intent."""
    return typed.build(Claim, {name: intent[name] for name in Claim.__dataclass_fields__})


def unfinished(stage: StageDir) -> Claim | None:
    """The attempt that is not over by its files; only the last can be."""
    numbers = stage.attempts()
    if not numbers:
        return None
    attempt = stage.attempt(numbers[-1])
    intent = records.read(attempt.intent)
    with records.understood(attempt.intent):
        ranks = num_ranks(intent)
        claim = claim_of(intent)
    return claim if ending(attempt, number=claim.number, ranks=ranks) is None else None
