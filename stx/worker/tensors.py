"""Named tensors as safetensors bytes that repeat: no metadata but one word, sorted names, nothing of clock or host.

    8 bytes little-endian header length | JSON header, padded with spaces to 8 bytes | data

Written in chunks, so that a file is hashed while it is written and never lies in memory twice, and through
jobs/files.py, whose every step the crash tests see. Larger element types come first, so that every tensor is aligned.
Any safetensors reader opens the files.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stx.errors import DataError

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
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, FileNotFoundError) as error:
        raise DataError(f"not a readable safetensors file: {error}", where=str(path)) from error
