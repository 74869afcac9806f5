"""A persistent sequence: replacing a few of 10,000 entries copies two short tuples, not 10,000 pointers.

The coordinator's state is a value: every event makes a new one. Entries live in chunks of 128, so that an update costs
128 + n/128 copies.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
CHUNK = 128


@dataclass(frozen=True)
class Table(Generic[T]):
    """An immutable sequence with cheap updates."""

    chunks: tuple[tuple[T, ...], ...]
    length: int

    @classmethod
    def of(cls, items: Iterable[T]) -> "Table[T]":
        """A table of these items."""
        flat = tuple(items)
        return cls(tuple(flat[first : first + CHUNK] for first in range(0, len(flat), CHUNK)), len(flat))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> T:
        return self.chunks[index // CHUNK][index % CHUNK]

    def __iter__(self) -> Iterator[T]:
        for chunk in self.chunks:
            yield from chunk

    def updated(self, changes: Mapping[int, T]) -> "Table[T]":
        """This table with other entries at some places."""
        if not changes:
            return self
        chunks = list(self.chunks)
        by_chunk: dict[int, list[T]] = {}
        for index, item in changes.items():
            place = index // CHUNK
            by_chunk.setdefault(place, list(chunks[place]))[index % CHUNK] = item
        for place, items in by_chunk.items():
            chunks[place] = tuple(items)
        return Table(tuple(chunks), self.length)
