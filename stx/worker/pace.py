"""When to save: how long to wait for the next save that only time asks for, and whether one fits the time left."""

import logging

from jobs import runtime
from stx.worker.attempt import Attempt

logger = logging.getLogger(__name__)
SAVE_MARGIN = 1.5  # a save is begun only when so many times its expected seconds are left


def interval(attempt: Attempt, *, save_seconds: float) -> float:
    """Seconds from the end of a save, which took `save_seconds`, to the next one that is due by time.

    Longer than the cluster file's `every_s` where saving would take more than `max_stall` of the time.
    """
    return max(attempt.checkpoint_every_s, save_seconds * (1 / attempt.max_stall - 1))


def fits(attempt: Attempt, *, expected_seconds: float, stop: bool, first: bool) -> bool:
    """Whether the time that is left is enough for a save.

    Who was asked to stop is ended after `stop_lead_s`, whatever the job's own limit is. The `first` save of an attempt
    is begun in the first half of its time whatever is expected: what an earlier attempt measured while the store
    stalled must not keep all later ones from saving.
    """
    left = min(runtime.time_left(), attempt.stop_lead_s) if stop else runtime.time_left()
    if first and not stop and left > attempt.time_s / 2:
        return True
    enough = SAVE_MARGIN * expected_seconds <= left
    if not enough:
        logger.warning("save not begun expected_seconds=%.2f left_seconds=%.2f", expected_seconds, left)
    return enough
