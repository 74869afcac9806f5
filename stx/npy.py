"""Arrays in .npy files, which anyone may have written: the header is read by our own rules, before anything is taken
from the file.

    0x93 NUMPY 1 0 | 2 bytes: length of the header | {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } | data

Numbers and booleans only: an array of objects is a pickle, which runs whatever its author wrote. The file must hold
exactly the bytes that its header promises, so no header makes us ask for more memory than the file has.
"""

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jobs import files
from jobs.files import Unreadable
from stx.errors import DataError

MAGIC = b"\x93NUMPY\x01\x00"
HEADER_BYTES = 1024
DIMENSIONS = 8
HINT = "stx writes plain .npy files of numbers: the file was damaged, or is of somebody else"
_HEADER = re.compile(rb"\{'descr': '([^']{2,8})', 'fortran_order': (True|False), 'shape': (\([0-9, ]{0,200}\)), \} *\n")
NUMBERS = re.compile(rb"[<|][biuf](1|2|4|8)")


class Header(NamedTuple):
    """What a .npy file says of itself; its data begin at byte `offset`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int

    @property
    def nbytes(self) -> int:
        """Size of the data."""
        return math.prod(self.shape) * self.dtype.itemsize


def header(data: bytes | memoryview, *, where: str) -> Header:
    """The header at the start of some bytes; DataError says what is wrong with it."""
    start = len(MAGIC) + 2
    head = bytes(data[: start + HEADER_BYTES])
    if not head.startswith(MAGIC):
        raise DataError(f"is no .npy file of version 1.0: {_looks_like(head)}", where=where, hint=HINT)
    length = int.from_bytes(head[len(MAGIC) : start], "little")
    text = head[start : start + length]
    match = _HEADER.fullmatch(text)
    if match is None:
        raise DataError(f"is no .npy file of numbers: its header is {text[:80]!r}", where=where, hint=HINT)
    kind, fortran, shape = match.groups()
    if not NUMBERS.fullmatch(kind):
        what = "holds objects (a pickle, which is never read)" if b"O" in kind else f"holds {kind.decode('latin-1')!r}"
        raise DataError(f"{what}: refused, an array holds numbers or booleans", where=where, hint=HINT)
    if fortran == b"True":
        raise DataError("is in Fortran order: refused", where=where, hint=HINT)
    sizes = tuple(int(size) for size in re.findall(rb"[0-9]+", shape))
    if len(sizes) > DIMENSIONS or math.prod(max(size, 1) for size in sizes) >= 2**62:
        raise DataError(f"has the shape {shape.decode()[:80]}: refused", where=where, hint=HINT)
    try:
        dtype = np.dtype(kind.decode())
    except TypeError as error:
        raise DataError(f"holds {kind.decode()!r}, which is no type of numbers", where=where, hint=HINT) from error
    return Header(sizes, dtype, start + length)


def load(path: Path, *, dtype: type[np.generic], dims: int, mapped: bool = False) -> NDArray[Any]:
    """The array in a file; DataError unless it has this type, so many dimensions and all its bytes. `mapped`: read
    where it is used.
    """
    where = str(path)
    try:
        size = files.check_plain(path)
        with path.open("rb") as stream:
            found = header(stream.read(len(MAGIC) + 2 + HEADER_BYTES), where=where)
    except (FileNotFoundError, Unreadable) as error:
        raise DataError(str(error.strerror), where=where) from error
    if found.dtype != np.dtype(dtype) or len(found.shape) != dims:
        wanted = f"{np.dtype(dtype)} of {dims} dimension{'s' if dims > 1 else ''}"
        raise DataError(f"is {found.dtype} of shape {found.shape}, wanted is {wanted}", where=where, hint=HINT)
    if size != found.offset + found.nbytes:
        promised = f"its header promises {found.offset + found.nbytes:,}"
        raise DataError(f"damaged: it has {size:,} bytes, {promised}", where=where, hint=HINT)
    if found.nbytes == 0:
        return np.empty(found.shape, dtype=found.dtype)
    if mapped:
        return np.memmap(path, dtype=found.dtype, mode="r", offset=found.offset, shape=found.shape)
    return np.fromfile(path, dtype=found.dtype, offset=found.offset).reshape(found.shape)


def _looks_like(head: bytes) -> str:
    if head.startswith(b"\x93NUMPY"):
        return f"version {'.'.join(map(str, head[6:8]))}"
    return "the file is empty" if not head else f"it begins with {head[:8]!r}"
