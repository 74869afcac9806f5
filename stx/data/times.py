"""t of rows from their uniform numbers: by the run's distribution, restricted to a window, or stratified over a batch.

Stratified: of a global batch of B rows, row j has the number

    ((order(j) + u) / B + shift) mod 1            u of the row, shift of the batch, both uniform in (0, 1)

where order is the digit reversal of j in the prime factors of B, for B a power of two its bits reversed. Then the batch
has one row in each of B equal shares of the distribution, an aligned slice of 2^k rows that divides B (a micro-batch, a
rank's rows) one in each of its 2^k, and every row alone is distributed as without: exactly, thanks to the shift.
"""

import functools

import numpy as np
from numpy.typing import NDArray

from stx.data import noise
from stx.data.noise import Purpose
from stx.times import Distribution


def times_of(
    uniforms: NDArray[np.float32], *, distribution: Distribution, window: tuple[float, float] = (0.0, 1.0)
) -> NDArray[np.float32]:
    """t (R,) inside the window, from uniform numbers (R,)."""
    if distribution.name == "uniform":
        low, high = np.float32(window[0]), np.float32(window[1])
        return np.clip(low + (high - low) * uniforms, low, high)  # the sum may round to just beyond
    first, last = (distribution.below(edge) for edge in window)
    shares = first + (last - first) * uniforms.astype(np.float64)
    shares = np.clip(shares, *np.nextafter([0.0, 1.0], 0.5))  # beyond them there is no quantile
    found = [distribution.quantile(share) for share in shares.tolist()]
    return np.clip(np.array(found, dtype=np.float32), *np.float32(window))


def stratified(uniforms: NDArray[np.float32], positions: NDArray[np.int64], *, seed: int, batch: int) -> NDArray:
    """The stratified uniform numbers (R,) float32 of the images n = `positions`, in batches of `batch`."""
    batches, rows = np.divmod(positions, batch)
    numbers, of_row = np.unique(batches, return_inverse=True)
    shifts = noise.uniforms(seed, Purpose.TRAIN_STRATA, numbers, count=1)[of_row, 0].astype(np.float64)
    places = ((strata(batch)[rows] + uniforms.astype(np.float64)) / batch + shifts) % 1.0
    return noise.from_counts(np.floor(places * 2**24).astype(np.uint32))


@functools.cache
def strata(batch: int) -> NDArray[np.int64]:
    """The stratum of each row of a batch, (B,): a permutation of 0..B-1."""
    order = np.zeros(1, dtype=np.int64)
    for radix in _prime_factors(batch):
        order = np.concatenate([radix * order + digit for digit in range(radix)])
    return order


def _prime_factors(number: int) -> list[int]:
    """Ascending, so that all factors of two come first."""
    found, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            found.append(divisor)
            number //= divisor
        divisor += 1
    return found
