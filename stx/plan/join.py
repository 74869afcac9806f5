"""Which sweep points of several inputs belong together: the natural join on the sweeps they share.

A planned stage has coordinates: for each swept stage among its ancestors (and itself) the point, for each fan-out the
run. Inputs are combined where they agree on every coordinate that both have; coordinates of one of them alone are
crossed. So the teacher and the features of one phase-1 seed never meet those of another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Coordinates = Mapping[str, int | str]


class Placed(Protocol):
    """Something with coordinates."""

    @property
    def coordinates(self) -> Coordinates:
        """Coordinate name -> value."""


Item = TypeVar("Item", bound=Placed)

MAX_ROWS = 100_000


class TooManyRows(Exception):
    """The sweeps behind a stage cross to more than MAX_ROWS combinations."""


@dataclass(frozen=True)
class Row(Generic[Item]):
    """One combination: an item for each input, and the coordinates of all of them."""

    coordinates: Coordinates
    items: Mapping[str, Item]


def natural_join(relations: Mapping[str, Sequence[Item]]) -> list[Row[Item]]:
    """All combinations of one item a relation that agree on every shared coordinate, in the order of the relations."""
    rows: list[Row[Item]] = [Row(coordinates={}, items={})]
    for name, items in relations.items():
        rows = _joined(rows, name, items)
    return rows


def _joined(rows: Sequence[Row[Item]], name: str, items: Sequence[Item]) -> list[Row[Item]]:
    # Items of one stage may have different coordinates (a fan-out's runs have other ancestors): one index for each set.
    shapes = list(dict.fromkeys(frozenset(item.coordinates) for item in items))
    indexes: dict[tuple[frozenset[str], ...], _Index] = {}
    found: list[Row[Item]] = []
    for row in rows:
        mine = frozenset(row.coordinates)
        positions: list[int] = []
        for theirs in shapes:
            index = indexes.get((mine, theirs))
            if index is None:
                index = indexes[mine, theirs] = _Index.of(items, shape=theirs, shared=mine & theirs)
            positions += index.matching(row.coordinates)
        for position in positions if len(shapes) == 1 else sorted(positions):
            item = items[position]
            found.append(Row({**row.coordinates, **item.coordinates}, {**row.items, name: item}))
        if len(found) > MAX_ROWS:
            raise TooManyRows
    return found


@dataclass(frozen=True)
class _Index:
    """The positions of the items of one set of coordinates, by their values on some of them."""

    shared: tuple[str, ...]
    positions: Mapping[tuple[int | str, ...], list[int]]

    @classmethod
    def of(cls, items: Sequence[Placed], *, shape: frozenset[str], shared: frozenset[str]) -> "_Index":
        """Index the items that have exactly the coordinates `shape`."""
        names = tuple(sorted(shared))
        positions: dict[tuple[int | str, ...], list[int]] = {}
        for position, item in enumerate(items):
            if item.coordinates.keys() == shape:
                positions.setdefault(tuple(item.coordinates[name] for name in names), []).append(position)
        return cls(shared=names, positions=positions)

    def matching(self, coordinates: Coordinates) -> Sequence[int]:
        """Where the items are that agree with `coordinates`."""
        return self.positions.get(tuple(coordinates[name] for name in self.shared), ())
