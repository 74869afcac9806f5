"""Work that is cut into units, spread over the ranks of an attempt. A unit is a whole shard or chunk of rows: one file,
published at once, whose presence says that its rows are made.

Rank r of W makes the units r, r + W, ... that do not stand yet. Ranks tell each other nothing but what stands in the
folder: an attempt may have any number of ranks, whatever earlier ones had; no rank waits in a collective for one that
was asked to leave; a rank whose units stand has done its part and ends. Rank 0 stays, its heart beating, until all
units stand, and makes those that a rank left behind when it ended. It alone then publishes what describes the whole.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stx.model.rows import spans
from stx.worker.attempt import Attempt
from stx.worker.progress import Progress

POLL_S = 0.2  # how often rank 0 looks whether the others are through


@dataclass(frozen=True)
class Unit:
    """Rows first .. last - 1 of a stage or part. They are made when `path` exists."""

    number: int
    first: int
    last: int
    path: Path


def cut(count: int, *, size: int, path: Callable[[int], Path]) -> list[Unit]:
    """Units of `size` rows (the last may have fewer) over `count` rows; `path` gives the file of the n-th."""
    return [Unit(number, first, last, path(number)) for number, (first, last) in enumerate(spans(count, batch=size))]


def share(progress: Progress, units: Sequence[Unit]) -> Iterator[Unit]:
    """The units that this rank has to make, one at a time: publish each before asking for the next.

    It ends on rank 0 when all units stand, on another rank when its own do; only rank 0 concludes. Between two units,
    and while rank 0 waits, it raises Yielded when the attempt was asked to stop. One folder holds all units.
    """
    attempt = progress.attempt
    own = set(range(attempt.rank, len(units), attempt.world_size))
    while todo := own & _missing(progress, units):
        if progress.made:
            progress.leave_if_asked()
        yield units[min(todo)]
    if attempt.rank == 0:
        yield from _left_behind(progress, units)


def _left_behind(progress: Progress, units: Sequence[Unit]) -> Iterator[Unit]:
    """Wait until all units stand. Those of ranks that have ended (asked to leave a moment before us) are ours."""
    attempt = progress.attempt
    while True:
        ended = _ended(attempt)  # read first: a rank publishes its units before it ends
        missing = _missing(progress, units)
        if not missing:
            return
        progress.leave_if_asked()
        if orphans := {number for number in missing if number % attempt.world_size in ended}:
            yield units[min(orphans)]
        else:
            time.sleep(POLL_S)


def _ended(attempt: Attempt) -> set[int]:
    """The ranks whose attempt is over, however it ended, and ourselves."""
    return {0} | {rank for rank in range(attempt.world_size) if attempt.folder.outcome(rank).exists()}


def _missing(progress: Progress, units: Sequence[Unit]) -> set[int]:
    """The numbers of the units that do not stand; the beat counts the rows of those that do, whoever made them."""
    folder = units[0].path.parent
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    missing = [unit for unit in units if unit.path.name not in names]
    progress.stand(progress.total - sum(unit.last - unit.first for unit in missing))
    return {unit.number for unit in missing}
