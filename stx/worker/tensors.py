"""Named tensors as safetensors bytes that repeat: no metadata but one word, sorted names, nothing of clock or host.

    8 bytes little-endian header length | JSON header, padded with spaces to 8 bytes | data

Written in chunks, so that a file is hashed while it is written and never lies in memory twice, and through
jobs/files.py, whose every step the crash tests see. Larger element types come first, so that every tensor is aligned.
Any safetensors reader opens the files.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from jobs import files, typed
from stx import records
from stx.errors import DataError

HEADER_BYTES = 100 << 20  # the format's own limit
HINT = "the file is damaged, or no safetensors file"
CONVERT = "safetensors.torch.save_file(torch.load(FILE, weights_only=True)[KEY], OUT)"

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_WIDTHS = {name: torch.empty(0, dtype=dtype).element_size() for dtype, name in _NAMES.items()}


def chunks(
    tensors: Mapping[str, Tensor], *, about: str = "", load: Callable[[str], Tensor] | None = None
) -> Iterator[memoryview | bytes]:
    """The bytes of a safetensors file. `about`, if given, is its one metadata word.

    With `load`, which gives a tensor's values when its turn comes, the tensors need not have any (device "meta").
    """
    load = load or tensors.__getitem__
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": {"about": about}} if about else {}
    offset = 0
    for name in names:
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        flat = load(name).detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            yield memoryview(flat.view(torch.uint8).numpy())


def read(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, on the CPU; DataError names a file that is none."""
    with opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)


def opened(path: Path) -> Any:
    """The open safetensors file, a context manager; DataError names one that is none, or whose header lies."""
    where = str(path)
    try:
        with files.opened(path.resolve()) as stream:  # a user's file may be a link, as all in the hub's cache are
            _check_header(stream, where=where)
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"not a readable safetensors file: {reason}", where=where, hint=HINT) from error


def _check_header(stream: BinaryIO, *, where: str) -> None:
    """Every tensor of a known type, exactly as long as its shape, inside the file, none over another."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    head = stream.read(16)
    if kind := _pickled(head):
        what = f"this is {kind}, which can run code when opened: stx does not read those"
        raise DataError(what, where=where, hint=f"if you trust it: {CONVERT}")
    length = int.from_bytes(head[:8], "little")
    if len(head) < 8 or not 2 <= length <= min(HEADER_BYTES, size - 8):
        what = f"its header would have {length:,} bytes, the file has {size:,}" if len(head) >= 8 else "it is cut off"
        raise DataError(f"not a readable safetensors file: {what}", where=where, hint=HINT)
    stream.seek(8)
    header = records.parse(stream.read(length), where=where)
    header.pop("__metadata__", None)
    end = 0
    with records.understood(Path(where)):
        entries = {name: typed.build(_Entry, entry) for name, entry in header.items()}
    for name, entry in sorted(entries.items(), key=lambda pair: pair[1].data_offsets):
        (first, last), width = entry.data_offsets, _WIDTHS.get(entry.dtype, -1)
        if width < 0 or min(entry.shape, default=0) < 0 or (first, last) != (end, end + math.prod(entry.shape) * width):
            what = f"{name[:200]!r} is {entry.dtype[:20]} {list(entry.shape)[:8]} at bytes {first} to {last}"
            raise DataError(f"not a readable safetensors file: {what}: refused", where=where, hint=HINT)
        end = last
    if end != size - 8 - length:
        what = f"its header promises {end:,} bytes of numbers, it has {size - 8 - length:,}"
        raise DataError(f"not a readable safetensors file: {what}", where=where, hint=HINT)


def _pickled(head: bytes) -> str:
    """What a file that begins so is, if it is one that torch.load or numpy would take."""
    if head.startswith(b"PK\x03\x04"):
        return "a zip file (what torch.save or np.savez writes: a pickle inside)"
    if head.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")) and head[2:8].strip(b"\0"):
        return "a pickle"
    return ""


@dataclass(frozen=True)
class _Entry:
    """One tensor of a header."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]
