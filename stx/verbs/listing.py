"""Which stages `stx status` tells of, and in how many lines: filters, sorts, and large sweeps as one line each. Pure.

A group is all that one stage of the experiment file became: the points of its sweep, or itself alone.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from stx.coordinator.state import Status
from stx.coordinator.status import QUEUED, Line
from stx.errors import ConfigError
from stx.named import unknown

ENDED = "ENDED"
# What a person looks for first.
STATES = (
    Status.FAILED.value,
    ENDED,
    Status.RUNNING.value,
    QUEUED,
    Status.ELSEWHERE.value,
    Status.DELAYED.value,
    Status.CANCELLED.value,
    Status.BLOCKED.value,
    Status.READY.value,
    Status.WAITING.value,
    Status.DONE.value,
)
SHOWN_OF_FOLDED = frozenset(STATES[:3])  # worth a line of their own although their sweep is folded
SORTS = ("name", "state", "eta", "rate")
FOLD_FROM = 12


@dataclass(frozen=True)
class Wish:
    """What a person asked for: states (none: all), an order ("": that of the graph), and whether nothing is folded."""

    states: frozenset[str] = frozenset()
    sort: str = ""
    every: bool = False


@dataclass(frozen=True)
class Group:
    """The stages of one name in the experiment file, together. The ETA is that of the slowest."""

    name: str
    size: int
    counts: Mapping[str, int]
    share: float | None
    images_per_s: float | None
    eta_s: float | None

    @property
    def state(self) -> str:
        """The first of its states in the order of STATES."""
        return min(self.counts, key=_rank)


Told = TypeVar("Told", Line, Group)


@dataclass(frozen=True)
class Listing:
    """What is told: groups in one line each, stages in one line each, and those left out by state."""

    groups: tuple[Group, ...]
    lines: tuple[Line, ...]
    left_out: Mapping[str, int]


def parse(states: str | None, *, sort: str | None, every: bool) -> Wish:
    """The options of the command line; unknown words are refused."""
    words = [word.strip().upper() for word in (states or "").split(",") if word.strip()]
    for word in words:
        if word not in STATES:
            raise unknown(word, sorted(STATES), what="no such state", where=f"--state {word}")
    if states is not None and not words:
        raise ConfigError("names no state", where=f"--state {states}", hint=f"known: {', '.join(sorted(STATES))}")
    if sort is not None and sort not in SORTS:
        raise unknown(sort, list(SORTS), what="no such order", where=f"--sort {sort}")
    return Wish(frozenset(words), sort or "", every)


def listing(lines: Sequence[Line], wish: Wish, *, room: int | None = None) -> Listing:
    """What to tell in `room` lines of a screen (None: as many as it takes, large sweeps folded all the same)."""
    asked = ordered(filtered(lines, wish.states), wish.sort)
    members: dict[str, list[Line]] = {}
    for line in asked:
        members.setdefault(line.stage, []).append(line)
    folded = set() if wish.every else _folded(members, room=room)
    groups = ordered([group(members[name]) for name in members if name in folded], wish.sort)
    if room is not None:
        groups = groups[: max(1, room // 2)]
    alone = [line for line in asked if line.stage not in folded]
    notable = [line for line in asked if line.stage in folded and line.state in SHOWN_OF_FOLDED]
    if room is None:
        chosen = {line.name for line in [*alone, *_first(notable, FOLD_FROM)]}
    else:
        left = room - _height(len(groups))
        fits = not folded and _height(len(alone)) <= left
        # Else two lines are for the header and for how many are left out.
        chosen = {line.name for line in _first([*alone, *notable], len(alone) if fits else max(0, left - 2))}
    shown = tuple(line for line in asked if line.name in chosen)
    left_out = Counter(line.state for line in asked if line.name not in chosen)
    return Listing(tuple(groups), shown, left_out)


def filtered(lines: Iterable[Line], states: Collection[str]) -> list[Line]:
    """Those in one of the states; no states: all."""
    return [line for line in lines if not states or line.state in states]


def ordered(told: Iterable[Told], sort: str) -> list[Told]:
    """In an order of SORTS, slow ones first; what is equal, or has no number, keeps the order of the graph."""
    if not sort:
        return list(told)
    return sorted(told, key=_KEYS[sort])


def group(lines: Sequence[Line]) -> Group:
    """The stages of one name as one."""
    known = [(line.images or 0, line.total) for line in lines if line.total]
    rates = [line.images_per_s for line in lines if line.images_per_s is not None]
    return Group(
        name=lines[0].stage,
        size=len(lines),
        counts=Counter(line.state for line in lines),
        share=sum(images for images, _ in known) / sum(total for _, total in known) if known else None,
        images_per_s=sum(rates) if rates else None,
        eta_s=max((line.eta_s for line in lines if line.eta_s is not None), default=None),
    )


def counted(counts: Mapping[str, int]) -> str:
    """3 FAILED, 200 RUNNING, 796 READY."""
    return ", ".join(f"{counts[state]:,} {state}" for state in sorted(counts, key=_rank))


def _rank(state: str) -> int:
    return STATES.index(state)


def _height(rows: int) -> int:
    """Lines of a table: its rows and its header."""
    return rows + 1 if rows else 0


def _folded(members: Mapping[str, Sequence[Line]], *, room: int | None) -> set[str]:
    """The large sweeps, and on a screen the next largest ones until the rest fits."""
    sizes = {name: len(lines) for name, lines in members.items()}
    folded = {name for name, size in sizes.items() if size > FOLD_FROM}
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        rest = sum(size for other, size in sizes.items() if other not in folded)
        if room is None or sizes[name] == 1 or _height(len(folded)) + _height(rest) <= room:
            break
        folded.add(name)
    return folded


def _first(lines: Iterable[Line], count: int) -> list[Line]:
    """Those that a person looks for first."""
    return sorted(lines, key=lambda line: _rank(line.state))[:count]


def _natural(name: str) -> list[tuple[int, str]]:
    """seed=2 before seed=10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


_KEYS: Mapping[str, Callable[[Line | Group], Any]] = {
    "name": lambda one: _natural(one.name),
    "state": lambda one: _rank(one.state),
    "eta": lambda one: -1.0 * (one.eta_s if one.eta_s is not None else -1.0),
    "rate": lambda one: one.images_per_s if one.images_per_s is not None else math.inf,
}
