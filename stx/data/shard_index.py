"""The index of a split's shards, <split>.index.json: what it says, and whether that can be true.

    Shard   name, bytes, sha256, count, labels, fields by extension
    Field   crc32: 8 hex digits a sample; for arrays of one shape also dtype, shape, and where the .npy file of sample j
            lies: first + j * stride, its numbers `header` bytes further

Arrays are read by memory map where an index says they lie, so nothing that it says is believed before it was checked:
all places are inside the shard, and what is read there is compared with its crc32.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs import typed
from stx import npy

SHARD = re.compile(r"[A-Za-z0-9_]{1,64}-[0-9]{5,12}\.tar")
HEX = re.compile(r"[0-9a-f]*")


@dataclass(frozen=True)
class Field:
    """One extension in one shard, see the module's docstring."""

    crc32: str
    dtype: str | None = None
    shape: tuple[int, ...] = ()
    first: int = 0
    stride: int = 0
    header: int = 0


@dataclass(frozen=True)
class Shard:
    """What the index says of a shard."""

    name: str
    bytes: int
    sha256: str
    count: int
    labels: tuple[int, ...] | None
    fields: Mapping[str, Field]

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> "Shard":
        """The inverse of `asdict`."""
        shard = typed.build(cls, record)
        if not SHARD.fullmatch(shard.name) or shard.count < 1 or not shard.fields:
            raise ValueError(f"{shard.name[:80]!r} with {shard.count} samples is no shard")
        if shard.labels is not None and len(shard.labels) != shard.count:
            raise ValueError(f"{shard.name} has {shard.count} samples and {len(shard.labels)} labels")
        for extension, field in shard.fields.items():
            _check_field(field, shard=shard, extension=extension)
        return shard


def _check_field(field: Field, *, shard: Shard, extension: str) -> None:
    """What is read by memory map lies inside the shard: ValueError otherwise."""
    what = f"{shard.name}: {extension[:80]!r}"
    if len(field.crc32) != 8 * shard.count or not HEX.fullmatch(field.crc32):
        raise ValueError(f"{what} has not one crc32 for each of {shard.count} samples")
    if field.dtype is None:
        return
    if not npy.NUMBERS.fullmatch(field.dtype.encode()) or len(field.shape) > npy.DIMENSIONS:
        raise ValueError(f"{what} holds {field.dtype!r} of {len(field.shape)} dimensions")
    if min(field.first, field.stride, field.header, *field.shape, 0) < 0:
        raise ValueError(f"{what} lies at a negative place")
    size = field.header + nbytes(field)
    if field.first + field.stride * (shard.count - 1) + size > shard.bytes or 0 < field.stride < size:
        raise ValueError(f"{what} does not lie within the {shard.bytes} bytes of its shard")


def parse(record: Mapping[str, Any]) -> list[Shard]:
    """The shards that an index describes, all with the same fields; ValueError, KeyError or TypeError otherwise."""
    found = [Shard.parse(shard) for shard in record["shards"]]
    if not found:
        raise ValueError("it lists no shard")
    shapes = [{name: (field.dtype, field.shape) for name, field in shard.fields.items()} for shard in found]
    other = next((shard.name for shard, shape in zip(found, shapes, strict=True) if shape != shapes[0]), None)
    if other is not None or len({shard.labels is None for shard in found}) > 1:
        raise ValueError(f"{other or 'one of its shards'} has other fields than {found[0].name}")
    return found


def nbytes(field: Field) -> int:
    """Size of one sample's numbers."""
    return math.prod(field.shape) * np.dtype(field.dtype).itemsize


def crc32s(field: Field) -> NDArray[np.uint32]:
    """The checksum of every sample's file."""
    return np.frombuffer(bytes.fromhex(field.crc32), dtype=">u4").astype(np.uint32)
