"""The cache of a teacher's features: for each sample, `draws` fixed noisy versions of it, and what the teacher saw.

Draw k of sample i takes its posterior noise, t and noise from Philox(cache seed; i, k), so nothing but features is
stored, and the features stage and the train loader, which both call the functions here, line up by construction.
t is drawn inside the window only, where alone the features are used, by the run's distribution of t.

    KEY.<k>.unconditional.npy   f_u (T, D)
    KEY.<k>.difference.npy      f_c - f_u, taken in fp32 before rounding, so that f_u + guidance * difference keeps the
                                format's relative precision at a guidance of 30

bf16 is stored as the upper 16 bits of a float32, in uint16, because .npy has no bf16.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from jobs import typed
from stx import records
from stx.data import noise, shards, times
from stx.data.noise import Purpose
from stx.data.shards import Sample, ShardSet
from stx.times import UNIFORM, Distribution

SPLIT = "features"
RECORD = "features.json"
UNCONDITIONAL, DIFFERENCE = "unconditional.npy", "difference.npy"

Shape = tuple[int, int, int]


class Draws(NamedTuple):
    """The noisings of R (sample, draw) pairs: (R, C, H, W), (R,), (R, C, H, W)."""

    posterior_noise: NDArray[np.float32]
    t: NDArray[np.float32]
    noise: NDArray[np.float32]


@dataclass(frozen=True)
class CachedFeatures:
    """What the teacher said of R rows: (R, T, D) each, float32."""

    unconditional: Tensor
    difference: Tensor

    def to(self, device: torch.device) -> "CachedFeatures":
        """On another device."""
        return CachedFeatures(self.unconditional.to(device), self.difference.to(device))


@dataclass(frozen=True)
class FeaturesInfo:
    """features.json. A linear interpolant is not written: it was there before there was a choice."""

    draws: int
    window: tuple[float, float]
    t_distribution: str
    cache_seed: int
    tokens: int
    width: int
    dtype: str
    teacher_block: int
    count: int
    interpolant: str = UNIFORM.interpolant

    def dump(self) -> dict[str, Any]:
        """Its JSON."""
        record = asdict(self) | {"window": list(self.window)}
        if self.interpolant == UNIFORM.interpolant:
            del record["interpolant"]
        return record

    @property
    def distribution(self) -> Distribution:
        """What t was drawn from, before the window."""
        return Distribution(self.t_distribution, self.interpolant)

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> "FeaturesInfo":
        """The inverse of `dump`."""
        return typed.build(cls, record)


def draw_features(
    cache_seed: int,
    samples: ArrayLike,
    draws: ArrayLike,
    *,
    shape: Shape,
    window: tuple[float, float],
    distribution: Distribution,
) -> Draws:
    """Everything that is drawn for the pairs (samples[r], draws[r])."""
    posterior_noise, drawn = draw_noise(cache_seed, samples, draws, shape=shape)
    t = draw_times(cache_seed, samples, draws, window=window, distribution=distribution)
    return Draws(posterior_noise, t, drawn)


def draw_times(
    cache_seed: int,
    samples: ArrayLike,
    draws: ArrayLike,
    *,
    window: tuple[float, float],
    distribution: Distribution,
) -> NDArray[np.float32]:
    """t of the pairs, inside the window."""
    uniform = noise.uniforms(cache_seed, Purpose.FEATURE_COINS, samples, count=1, draw=draws)[:, 0]
    return times.times_of(uniform, distribution=distribution, window=window)


def draw_noise(
    cache_seed: int, samples: Any, draws: Any, *, shape: Shape, pairs: Callable[..., Any] = noise.normal_pairs
) -> tuple[Any, Any]:
    """Posterior noise and noise of the pairs, (R, C, H, W); with `pairs` = device_noise.normal_pairs of tensors."""
    channels, height, width = shape
    made = pairs(cache_seed, Purpose.FEATURE_NOISE, samples, count=channels * height * width, draw=draws)
    posterior_noise, drawn = (slot.reshape(len(samples), *shape) for slot in made)
    return posterior_noise, drawn


def publish_features(
    folder: Path, number: int, *, first: int, unconditional: Tensor, difference: Tensor, dtype: str
) -> bool:
    """Publish shard `number`: (S, K, T, D) float32 of the samples first .. first + S - 1, dtype "bf16" or "fp32"."""
    assert unconditional.dtype == difference.dtype == torch.float32, "the difference is taken in fp32, then rounded"
    stored = {UNCONDITIONAL: _stored(unconditional, dtype=dtype), DIFFERENCE: _stored(difference, dtype=dtype)}
    samples = [
        Sample(
            shards.key_of(first + row),
            {
                f"{draw}.{name}": shards.npy_bytes(array)
                for name, values in stored.items()
                for draw, array in enumerate(values[row])
            },
        )
        for row in range(len(unconditional))
    ]
    return shards.publish_shard(shards.shard_path(folder, SPLIT, number), samples)


class FeatureCache:
    """A finished folder of features."""

    def __init__(self, folder: Path) -> None:
        self.info = records.load(FeaturesInfo, folder / RECORD)
        self._shards = ShardSet(folder, SPLIT)

    def gather(self, samples: ArrayLike, draws: ArrayLike) -> CachedFeatures:
        """The features of the pairs (samples[r], draws[r])."""
        return CachedFeatures(self._read(UNCONDITIONAL, samples, draws), self._read(DIFFERENCE, samples, draws))

    def verify(self) -> None:
        """Check every shard now; without it a sample is checked when it is first read."""
        self._shards.verify()

    def _read(self, name: str, samples: ArrayLike, draws: ArrayLike) -> Tensor:
        wanted, chosen = np.asarray(samples, dtype=np.int64), np.asarray(draws, dtype=np.int64)
        out = np.empty((len(wanted), self.info.tokens, self.info.width), dtype=np.float32)
        for draw in np.unique(chosen):
            rows = chosen == draw
            out[rows] = _restored(self._shards.gather(f"{draw}.{name}", wanted[rows]))
        return torch.from_numpy(out)


def _stored(values: Tensor, *, dtype: str) -> NDArray[Any]:
    if dtype == "fp32":
        return values.numpy()
    assert dtype == "bf16", dtype
    return values.to(torch.bfloat16).view(torch.uint16).numpy()


def _restored(array: NDArray[Any]) -> NDArray[np.float32]:
    if array.dtype == np.float32:
        return array
    assert array.dtype == np.uint16, array.dtype
    return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
