"""Damage to files (flipped bits, bytes more and fewer), and to what JSON says: other values at its positions."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

DEEP: Any = []
for _ in range(200):
    DEEP = [DEEP]
OTHERS: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2.5,
    10**30,
    "",
    "../../x",
    "a\x00\x1b[2J\ud800",
    "x" * 5000,
    [],
    {},
    [{}],
    DEEP,
)
TEXTS = (
    b"",
    b"\x00" * 64,
    b"null",
    b"[]",
    b"NaN",
    b'{"a": NaN}',
    b'{"a": 1e999}',
    b'{"a": Infinity}',
    b'{"a": 1, "a": 2}',
    b'{"a": ' + b"9" * 6000 + b"}",
    b"[" * 100_000,
    b'{"a":' * 20_000,
    b'{"a": "\xff\xfe"}',
    b'\xef\xbb\xbf{"a": 1}',
    b'"' + b"x" * 100_000 + b'"',
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside a JSON value, itself first."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inside:
        yield from places(item, (*path, name))


def swapped(record: dict[str, Any], *, seed: int, count: int) -> Iterator[bytes]:
    """The record with another value at one position, or without it: `count` of all such, seeded."""
    chooser = random.Random(seed)
    paths = [path for path in places(record) if path]
    for _ in range(count):
        path, other = chooser.choice(paths), chooser.choice((*OTHERS, ...))
        changed = copy.deepcopy(record)
        level = changed
        for part in path[:-1]:
            level = level[part]
        if other is ...:
            del level[path[-1]]
        else:
            level[path[-1]] = other
        yield json.dumps(changed).encode()


def damaged(data: bytes, *, seed: int, count: int) -> Iterator[bytes]:
    """Flipped bits, inserted, removed and repeated bytes, and prefixes, seeded."""
    chooser = random.Random(seed)
    for _ in range(count):
        place, length = chooser.randrange(len(data)), chooser.randrange(1, 9)
        kind = chooser.randrange(5)
        if kind == 0:
            flipped = data[place] ^ (1 << chooser.randrange(8))
            yield data[:place] + bytes([flipped]) + data[place + 1 :]
        elif kind == 1:
            yield data[:place] + chooser.randbytes(length) + data[place:]
        elif kind == 2:
            yield data[:place] + data[place + length :]
        elif kind == 3:
            yield data[:place] + data[place : place + length] * 50 + data[place:]
        else:
            yield data[:place]
