"""Fixed padded chunks: what a network makes of a row depends, in its last bits, on the size of the batch the row sits
in.

On a CPU the same row gives other bits in a batch of 21 than in one of 64. So encoding, features, sampling and
extraction work in chunks of `batch` rows, an option that is in the key; the last chunk is padded, no chunk is ever
split, and shards, ranks and resumed attempts take whole ones.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def spans(count: int, *, batch: int) -> Iterator[tuple[int, int]]:
    """[first, last) of each chunk of `count` rows."""
    for first in range(0, count, batch):
        yield first, min(first + batch, count)


def padded(rows: Tensor, *, batch: int) -> Tensor:
    """At most `batch` rows, filled up to `batch` by repeating the last one."""
    missing = batch - len(rows)
    assert 0 <= missing < batch, f"a chunk has 1..{batch} rows, not {len(rows)}"
    return rows if missing == 0 else torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])])


def chunked(function: Callable[..., Tensor], *rows: Tensor, batch: int) -> Tensor:
    """`function` over tensors with equally many rows, a padded chunk at a time; the padding is cut off."""
    parts = []
    for first, last in spans(len(rows[0]), batch=batch):
        chunk = [padded(tensor[first:last], batch=batch) for tensor in rows]
        parts.append(function(*chunk)[: last - first])
    return torch.cat(parts)
