"""noise.py in torch, for noise made on the device (`noise_on: device`): equal words, floats equal but for last bits.

torch has no unsigned 64-bit arithmetic. A word sits in an int64 with the same bits: sums and products wrap as they
should, a right shift is followed by a mask, and the upper half of a product is put together from four products of
32-bit halves.
"""

from functools import cache, lru_cache

import torch
from torch import Tensor

from stx.data.noise import WORDS_PER_BLOCK, Purpose, key_words, words_of_normals

MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
ROUNDS = 10
LOW = 0xFFFFFFFF


def words(seed: int, purpose: Purpose, index: Tensor, *, count: int, draw: Tensor | int = 0) -> Tensor:  # (R, count)
    """As noise.words: 32-bit words in int64, on the device of `index` (R,)."""
    num_blocks = -(-count // WORDS_PER_BLOCK)
    rows = len(index)
    blocks = torch.arange(1, num_blocks + 1, device=index.device).expand(rows, num_blocks)
    draws = draw.expand(rows) if isinstance(draw, Tensor) else torch.full_like(index, draw)
    counter = torch.stack([blocks, *(part[:, None].expand(rows, num_blocks) for part in (index, draws, 0 * draws))])
    blocks64 = philox(counter, key=key_words(seed, purpose))
    halves = torch.stack([blocks64 & LOW, (blocks64 >> 32) & LOW])  # (2, 4, R, blocks), low half first
    return halves.permute(2, 3, 1, 0).reshape(rows, -1)[:, :count]


def normal_pairs(
    seed: int, purpose: Purpose, index: Tensor, *, count: int, draw: Tensor | int = 0
) -> tuple[Tensor, Tensor]:  # (R, count) twice
    """As noise.normal_pairs."""
    raw = words(seed, purpose, index, count=words_of_normals(2 * count), draw=draw)
    low, middle, high = (raw & 0xFF).chunk(3, dim=1)
    numbers = torch.cat([raw >> 8, low | middle << 8 | high << 16], dim=1).to(torch.float32)
    first, second = numbers[:, :count], numbers[:, count : 2 * count]
    radius, angle = (-2.0 * ((first + 1.0) * 2.0**-24).log()).sqrt(), second * (2.0 * torch.pi * 2.0**-24)
    return radius * angle.cos(), radius * angle.sin()


def philox(counter: Tensor, *, key: tuple[int, int]) -> Tensor:
    """Philox4x64-10 of counters (4, ...) int64.

    Salmon, Moraes, Dror and Shaw, Parallel random numbers: as easy as 1, 2, 3 (2011).
    """
    multiplied, kept = counter[0::2], counter[1::2]  # the two halves of the state, (2, ...) each: one launch does both
    shape = (2,) + (1,) * (counter.dim() - 1)
    factors = [row.view(shape) for row in _factors(counter.device)]
    for round_key in _round_keys(key, counter.device):
        upper, lower = _multiply(multiplied, *factors)
        multiplied = upper.flip(0) ^ kept ^ round_key.view(shape)
        kept = lower.flip(0)
    return torch.stack([multiplied[0], kept[0], multiplied[1], kept[1]])


def _multiply(value: Tensor, whole: Tensor, low_factor: Tensor, high_factor: Tensor) -> tuple[Tensor, Tensor]:
    """Upper and lower 64 bits of the unsigned products of value and whole = (high_factor << 32) + low_factor."""
    low, high = value & LOW, (value >> 32) & LOW
    middle = high * low_factor + ((low * low_factor >> 32) & LOW)
    carry = low * high_factor + (middle & LOW)
    upper = high * high_factor + ((middle >> 32) & LOW) + ((carry >> 32) & LOW)
    return upper, value * whole


# Both are kept per device: making a tensor from Python numbers waits for the device.
@cache
def _factors(device: torch.device) -> Tensor:
    rows = [[_signed(m) for m in MULTIPLIERS], [m & LOW for m in MULTIPLIERS], [m >> 32 for m in MULTIPLIERS]]
    return torch.tensor(rows, device=device)


@lru_cache(maxsize=64)
def _round_keys(key: tuple[int, int], device: torch.device) -> Tensor:
    rows = [[_signed(word + number * weyl) for word, weyl in zip(key, WEYL, strict=True)] for number in range(ROUNDS)]
    return torch.tensor(rows, device=device)


def _signed(word: int) -> int:
    """The signed integer with the same 64 bits."""
    word &= 2**64 - 1
    return word - 2**64 if word >= 2**63 else word
