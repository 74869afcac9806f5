"""What follows from the way a stage's attempts ended: run again now, later, or never. Pure.

| the last attempt                          | then                                                                    |
|-------------------------------------------|-------------------------------------------------------------------------|
| YIELDED                                   | again, free; after 3 without progress delays of 1, 2, 4 .. 30 minutes    |
| COMPLETED, but what is wanted is missing  | again, free; failed after 3 without progress                            |
| FAILED or lost                            | again while the cause's budget lasts, after the cause's backoff         |

Budgets count attempts since the last `stx retry`, whoever made them.
"""

from dataclasses import dataclass

from jobs.spec import Result
from stx.coordinator.events import Facts, Policy
from stx.endings import Ended

MAX_IDLE = 3
MAX_YIELD_DELAY_S = 1800.0


@dataclass(frozen=True)
class Decision:
    """Never again (`fail`), or again after `delay_s`; `why` in words for people."""

    fail: bool = False
    delay_s: float = 0.0
    why: str = ""


def decide(facts: Facts, policy: Policy) -> Decision:
    """Whether and when a stage whose result is missing and that has no live attempt may run (again)."""
    ended = facts.ended
    if ended is None:
        return Decision()
    if ended.result == Result.COMPLETED:
        return _after_completed(facts)
    if ended.result == Result.YIELDED:
        return _after_yield(facts)
    return _after_failure(ended, facts=facts, policy=policy)


def _after_completed(facts: Facts) -> Decision:
    if facts.idle >= MAX_IDLE:
        why = f"USER: completed {facts.idle} times without publishing what is wanted of it"
        return Decision(fail=True, why=why)
    return Decision()


def _after_yield(facts: Facts) -> Decision:
    if facts.idle < MAX_IDLE:
        return Decision()
    delay = min(60.0 * 2 ** (facts.idle - MAX_IDLE), MAX_YIELD_DELAY_S)
    return Decision(delay_s=delay, why=f"yielded {facts.idle} times without progress")


def _after_failure(ended: Ended, *, facts: Facts, policy: Policy) -> Decision:
    cause = str(ended.cause)
    spent = facts.spent.get(cause, 0)
    if spent == 0:
        return Decision()  # retried by a person, or failed under other code
    allowed = policy.retries.get(cause.lower(), 0)
    words = f"{cause}: {ended.message}" if ended.message else cause
    if spent > allowed:
        return Decision(fail=True, why=words)
    delay = policy.backoff_s[min(spent, len(policy.backoff_s)) - 1] if policy.backoff_s else 0.0
    return Decision(delay_s=delay, why=f"retry {spent} of {allowed} after {words}")
