"""Latents: shards of VAE moments, and the one place where scale and shift are applied and inverted.

    latents = (mean + std * posterior_noise - shift) * scale

Stored are mean and STANDARD DEVIATION (not its logarithm), KEY.moments.npy (2C, H, W), and the label, KEY.cls. Scale,
shift and the autoencoder's digest travel with the shards in latents.json.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from jobs import typed
from stx import records
from stx.data import shards
from stx.data.shards import Sample, ShardSet
from stx.errors import DataError

SPLIT = "train"
RECORD = "latents.json"
MOMENTS = "moments.npy"
DTYPES = {"fp32": np.float32, "fp16": np.float16}

Array = TypeVar("Array", NDArray[np.float32], Tensor)


@dataclass(frozen=True)
class LatentsInfo:
    """latents.json."""

    channels: int
    size: int
    num_classes: int
    class_names: tuple[str, ...]
    scale: float
    shift: float
    autoencoder: str
    count: int
    dtype: str

    def dump(self) -> dict[str, Any]:
        """Its JSON."""
        return asdict(self) | {"class_names": list(self.class_names)}

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> "LatentsInfo":
        """The inverse of `dump`."""
        return typed.build(cls, record)


def scaled(mean: Array, std: Array, posterior_noise: Array, *, scale: float, shift: float) -> Array:
    """Posterior samples as the networks see them."""
    return (mean + std * posterior_noise - shift) * scale


def unscaled(latents: Array, *, scale: float, shift: float) -> Array:
    """What the decoder wants."""
    return latents / scale + shift


def publish_latents(
    folder: Path,
    number: int,
    *,
    first: int,
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
    labels: Sequence[int] | NDArray[np.int64],
    dtype: str,
) -> bool:
    """Publish shard `number`: moments (R, C, H, W) and labels of the dataset rows first .. first + R - 1."""
    with np.errstate(over="ignore"):
        moments = np.concatenate([mean, std], axis=1).astype(DTYPES[dtype])
    if not np.isfinite(moments).all():
        row = int(np.flatnonzero(~np.isfinite(moments).all(axis=(1, 2, 3)))[0])
        hint = f"the autoencoder gave numbers that {dtype} cannot hold"
        raise DataError(f"the moments of sample {first + row} are not finite", where=str(folder), hint=hint)
    samples = [
        Sample(shards.key_of(first + row), {MOMENTS: shards.npy_bytes(moments[row]), shards.LABEL: b"%d" % label})
        for row, label in enumerate(labels)
    ]
    return shards.publish_shard(shards.shard_path(folder, SPLIT, number), samples)


class Latents:
    """A finished folder of latents."""

    def __init__(self, folder: Path) -> None:
        self.info = records.load(LatentsInfo, folder / RECORD)
        self._shards = ShardSet(folder, SPLIT)
        self.num_samples = self._shards.num_samples
        self.sizes = self._shards.sizes
        self.labels = self._shards.labels

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.info.channels, self.info.size, self.info.size)

    def moments(self, indices: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation, (R, C, H, W) each."""
        gathered = self._shards.gather(MOMENTS, indices, dtype=np.float32)
        channels = self.info.channels
        return gathered[:, :channels], gathered[:, channels:]

    def verify(self) -> None:
        """Check every shard now; without it a sample is checked when it is first read."""
        self._shards.verify()
