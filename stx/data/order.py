"""Which sample is the n-th image seen: a pure function of (seed, n), so that any rank can ask for any n at any time.

Epoch = n // N; position n % N of that epoch's permutation. Shards are put in a random order, cut into windows of
`window` shards, and the samples of a window are shuffled together: every epoch has other windows. A reader so touches
few shards at a time, while a window of many shards keeps batches mixed even if each shard holds a single class.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stx.data import noise
from stx.data.noise import Purpose

KEPT_EPOCHS = 2  # a batch may straddle two
SAMPLE_KEYS, SHARD_KEYS = 0, 1  # draws


class Order:
    """`sizes`: samples per shard. `window`: shards that are shuffled together; None = all of them."""

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        seed: int,
        purpose: Purpose = Purpose.TRAIN_ORDER,
        window: int | None = None,
    ) -> None:
        self.num_samples = sum(sizes)
        assert self.num_samples > 0, "an order of no samples"
        self._sizes = tuple(sizes)
        self._seed = seed
        self._purpose = purpose
        self._window = window
        self._epochs: dict[int, NDArray[np.int64]] = {}

    def indices(self, positions: ArrayLike) -> NDArray[np.int64]:
        """The dataset index of each position n, for positions of any epochs in any order."""
        epochs, places = np.divmod(np.asarray(positions, dtype=np.int64), self.num_samples)
        out = np.empty(epochs.shape, dtype=np.int64)
        for epoch in np.unique(epochs):
            rows = epochs == epoch
            out[rows] = self._permutation(int(epoch))[places[rows]]
        return out

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        found = self._epochs.get(epoch)
        if found is None:
            found = permutation(self._sizes, seed=self._seed, purpose=self._purpose, epoch=epoch, window=self._window)
            for old in sorted(self._epochs)[: len(self._epochs) + 1 - KEPT_EPOCHS]:
                del self._epochs[old]
            self._epochs[epoch] = found
        return found


def permutation(
    sizes: Sequence[int], *, seed: int, purpose: Purpose, epoch: int, window: int | None
) -> NDArray[np.int64]:
    """The order of one epoch."""
    total = sum(sizes)
    if window is None or window >= len(sizes):
        return noise.permutation(seed, purpose, epoch, size=total, draw=SAMPLE_KEYS)
    shard_order = noise.permutation(seed, purpose, epoch, size=len(sizes), draw=SHARD_KEYS)
    window_of_shard = np.empty(len(sizes), dtype=np.int64)
    window_of_shard[shard_order] = np.arange(len(sizes)) // window
    keys = noise.sort_keys(seed, purpose, epoch, size=total, draw=SAMPLE_KEYS)
    return np.lexsort((keys, np.repeat(window_of_shard, sizes))).astype(np.int64, copy=False)
