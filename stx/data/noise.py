"""All randomness of the project: counter-based, so that the n-th image seen decides its own noise.

    word i of (seed, purpose, index, draw) = word i of Philox4x64-10 with key (seed, purpose)
                                             and counters (1, index, draw, 0), (2, index, draw, 0), ...

A 64-bit word counts as two of 32, the low half first. The words come from numpy.random.Philox as raw words: its
algorithm is fixed by known answers (tests/data/test_noise.py), while the streams of numpy's Generator methods may
change between versions. Of the Philox family it is the 64-bit member because numpy has that one in C: 4x32 words from
vectorised numpy allowed at most 2.2 times the normals per second of one Generator per image, these allow more than 3
(tools/bench/noise.py). device_noise.py makes the same words with torch.

    uniform = k 2^-24, and 2^-25 for k = 0, with k the upper 24 bits of a word: exact in float32 and inside the open
              interval (0, 1)
    normals = sqrt(-2 ln ((k + 1) 2^-24)) times (cos, sin)(2 pi k' 2^-24): Box-Muller; k from the first half of a row's
              24-bit numbers, k' from the second; the cosines are the first half of the row's normals
    numbers   three words w0, w1, w2 give four of 24 bits: their upper 24, and their lower bytes w2w1w0; a row takes the
              words w0 of all its fours first, then all w1, then all w2, and its numbers come in that order too
"""

import math
import threading
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

WORDS_PER_BLOCK = 8
CHUNK_WORDS = 1 << 17  # words that are made and transformed while they sit in the cache
EIGHT, SIXTEEN, LOWEST_BYTE = np.uint32(8), np.uint32(16), np.uint32(255)
UNIT = np.float32(2.0**-24)
ONE = np.float32(1.0)
MINUS_TWO = np.float32(-2.0)
SMALLEST = np.float32(0.5)
TURN = np.float32(2.0 * np.pi * 2.0**-24)
_kept = threading.local()


class Purpose(IntEnum):
    """One per stage kind and use, so that equal seeds in two stages never share noise.

    The numbers are part of all results: add one, never renumber.
    """

    TRAIN_NOISE = 1
    TRAIN_COINS = 2
    TRAIN_ORDER = 3
    TRAIN_INIT = 4
    ALIGNMENT_INIT = 5
    FEATURE_NOISE = 6
    FEATURE_COINS = 7
    AUTOENCODER_NOISE = 8
    AUTOENCODER_ORDER = 9
    AUTOENCODER_INIT = 10
    CLASSIFIER_ORDER = 11
    CLASSIFIER_INIT = 12
    SAMPLE_NOISE = 13
    IMAGES_SPLIT = 14
    SAMPLE_STEPS = 15
    SAMPLE_LABELS = 16
    TRAIN_STRATA = 17
    INSPECT_NOISE = 18


def words(
    seed: int, purpose: Purpose, index: ArrayLike, *, count: int, draw: ArrayLike = 0
) -> NDArray[np.uint32]:  # (R, count)
    """The first `count` 32-bit words of each row of `index` (R,); `draw` is one number or one per row."""
    rows = np.asarray(index, dtype=np.uint64)
    out = np.empty((len(rows), count), dtype=np.uint32)
    for row, raw in enumerate(_raw_rows(seed, purpose, rows, _per_row(draw, rows), count=count)):
        out[row] = raw
    return out


def uniforms(
    seed: int, purpose: Purpose, index: ArrayLike, *, count: int, draw: ArrayLike = 0
) -> NDArray[np.float32]:  # (R, count)
    """Uniform numbers in the open interval (0, 1)."""
    return from_counts(words(seed, purpose, index, count=count, draw=draw) >> EIGHT)


def from_counts(counts: NDArray[np.uint32]) -> NDArray[np.float32]:
    """24-bit counts k as uniform numbers in the open interval (0, 1)."""
    return np.maximum(counts.astype(np.float32), SMALLEST) * UNIT


def normals(
    seed: int, purpose: Purpose, index: ArrayLike, *, count: int, draw: ArrayLike = 0
) -> NDArray[np.float32]:  # (R, count)
    """Standard normal numbers."""
    rows, half = np.asarray(index, dtype=np.uint64), (count + 1) // 2
    out = np.empty((len(rows), 2 * half), dtype=np.float32)
    _fill_normals(out[:, :half], out[:, half:], seed=seed, purpose=purpose, rows=rows, draws=_per_row(draw, rows))
    return out[:, :count]


def normal_pairs(
    seed: int, purpose: Purpose, index: ArrayLike, *, count: int, draw: ArrayLike = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:  # (R, count) twice
    """Two slots of normals for each row: the halves of `normals(count=2 * count)`, each contiguous."""
    rows = np.asarray(index, dtype=np.uint64)
    first, second = (np.empty((len(rows), count), dtype=np.float32) for _ in range(2))
    _fill_normals(first, second, seed=seed, purpose=purpose, rows=rows, draws=_per_row(draw, rows))
    return first, second


def permutation(seed: int, purpose: Purpose, number: int, *, size: int, draw: int = 0) -> NDArray[np.int64]:
    """The `number`-th permutation of range(size): a stable sort of 64-bit keys."""
    keys = sort_keys(seed, purpose, number, size=size, draw=draw)
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)


def sort_keys(seed: int, purpose: Purpose, number: int, *, size: int, draw: int = 0) -> NDArray[np.uint64]:
    """`size` 64-bit words to sort by."""
    return words(seed, purpose, [number], count=2 * size, draw=draw).view(np.uint64)[0]


def init_seed(seed: int, purpose: Purpose) -> int:
    """A seed for torch.manual_seed, under which weights are made: the one place where torch's own generator is used."""
    low, high = (int(word) for word in words(seed, purpose, [0], count=2)[0])
    return (high << 32 | low) & (2**63 - 1)


def key_words(seed: int, purpose: Purpose) -> tuple[int, int]:
    """The Philox key; a negative seed counts from 2^64."""
    return seed & (2**64 - 1), int(purpose)


def _raw_rows(
    seed: int, purpose: Purpose, rows: NDArray[np.uint64], draws: NDArray[np.uint64], *, count: int
) -> Iterator[NDArray[np.uint32]]:
    # numpy increments the counter before each block, so a row starts at 0. Setting `state` costs a tenth of a new
    # Philox.
    num_raw = -(-count // WORDS_PER_BLOCK) * WORDS_PER_BLOCK // 2
    generator = np.random.Philox(key=np.array(key_words(seed, purpose), dtype=np.uint64))
    state = generator.state
    counter = state["state"]["counter"]
    for index, draw in zip(rows, draws, strict=True):
        counter[:] = (0, index, draw, 0)
        generator.state = state
        yield generator.random_raw(num_raw).view(np.uint32)[:count]


def _per_row(draw: ArrayLike, rows: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return np.broadcast_to(np.asarray(draw, dtype=np.uint64), rows.shape)


def _fill_normals(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    *,
    seed: int,
    purpose: Purpose,
    rows: NDArray[np.uint64],
    draws: NDArray[np.uint64],
) -> None:
    # In chunks that fit the cache: this changes the speed and no bit.
    half = first.shape[1]
    num_words = words_of_normals(2 * half)
    step = max(1, min(len(rows), CHUNK_WORDS // max(1, num_words)))
    raw = _scratch("raw", np.uint32, step, num_words)
    numbers = _scratch("numbers", np.uint32, step, num_words // 3 * 4)
    floats = _scratch("floats", np.float32, *numbers.shape)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        size = len(rows[part])
        for row, row_words in enumerate(_raw_rows(seed, purpose, rows[part], draws[part], count=num_words)):
            raw[row] = row_words
        _numbers_of(raw[:size], out=numbers[:size])
        np.copyto(floats[:size], numbers[:size].view(np.int32), casting="unsafe")  # signed: one instruction converts it
        radius, angle = floats[:size, :half], floats[:size, half : 2 * half]
        _box_muller(radius, angle, cosines=first[part], sines=second[part])


def _scratch(name: str, dtype: type, *shape: int) -> NDArray[Any]:
    """An array of this thread with any contents. It is kept: fresh memory costs more than the logarithms."""
    kept, size = vars(_kept).get(name), math.prod(shape)
    if kept is None or kept.size < size:
        kept = np.empty(size, dtype=dtype)
        setattr(_kept, name, kept)
    return kept[:size].reshape(shape)


def words_of_normals(count: int) -> int:
    """How many words `count` normals take."""
    return 3 * -(-count // 4)


def _numbers_of(raw: NDArray[np.uint32], *, out: NDArray[np.uint32]) -> None:
    """Four 24-bit numbers from three words; `raw` is used up."""
    num_words, third = raw.shape[1], raw.shape[1] // 3
    np.right_shift(raw, EIGHT, out=out[:, :num_words])
    np.bitwise_and(raw, LOWEST_BYTE, out=raw)
    low, middle, high, packed = raw[:, :third], raw[:, third : 2 * third], raw[:, 2 * third :], out[:, num_words:]
    np.left_shift(middle, EIGHT, out=packed)
    np.bitwise_or(packed, low, out=packed)
    np.left_shift(high, SIXTEEN, out=high)
    np.bitwise_or(packed, high, out=packed)


def _box_muller(
    radius: NDArray[np.float32],
    angle: NDArray[np.float32],
    *,
    cosines: NDArray[np.float32],
    sines: NDArray[np.float32],
) -> None:
    """In place, from 24-bit numbers."""
    np.add(radius, ONE, out=radius)
    np.multiply(radius, UNIT, out=radius)
    np.log(radius, out=radius)
    np.multiply(radius, MINUS_TWO, out=radius)
    np.sqrt(radius, out=radius)
    np.multiply(angle, TURN, out=angle)
    for function, out in ((np.cos, cosines), (np.sin, sines)):
        function(angle, out=out)
        np.multiply(out, radius, out=out)
