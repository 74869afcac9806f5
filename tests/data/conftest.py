"""Small real folders of latents and features."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stx import records
from stx.data import features, latents, noise, shards
from stx.data.features import FeatureCache, FeaturesInfo
from stx.data.latents import Latents, LatentsInfo
from stx.data.noise import Purpose

CHANNELS, SIZE, CLASSES = 2, 4, 5
SHAPE = (CHANNELS, SIZE, SIZE)
TOKENS, WIDTH, DRAWS, WINDOW, CACHE_SEED = 4, 3, 3, (0.4, 0.7), 99


def make_latents(folder: Path, *, sizes: tuple[int, ...] = (8, 8, 5), dtype: str = "fp32") -> Latents:
    """Shards of distinct moments; the label of sample i is i % CLASSES."""
    folder.mkdir(parents=True, exist_ok=True)
    count, first = sum(sizes), 0
    mean, std = (
        noise.normals(1, Purpose.SAMPLE_NOISE, np.arange(count), count=2 * CHANNELS * SIZE**2)
        .reshape(count, 2, *SHAPE)
        .swapaxes(0, 1)
    )
    for number, size in enumerate(sizes):
        rows = slice(first, first + size)
        labels = np.arange(first, first + size) % CLASSES
        latents.publish_latents(
            folder, number, first=first, mean=mean[rows], std=np.abs(std[rows]), labels=labels, dtype=dtype
        )
        first += size
    shards.publish_index(folder, "train", num_shards=len(sizes))
    info = LatentsInfo(
        channels=CHANNELS,
        size=SIZE,
        num_classes=CLASSES,
        class_names=tuple("abcde"),
        scale=0.5,
        shift=0.25,
        autoencoder="0" * 64,
        count=count,
        dtype=dtype,
    )
    records.publish(folder / "latents.json", info.dump())
    return Latents(folder)


def make_features(folder: Path, *, sizes: tuple[int, ...] = (8, 8, 5), dtype: str = "fp32") -> FeatureCache:
    """The unconditional features of draw k of sample i are i + k / 8 everywhere; the difference is its negative."""
    folder.mkdir(parents=True, exist_ok=True)
    first = 0
    for number, size in enumerate(sizes):
        value = torch.arange(first, first + size)[:, None] + torch.arange(DRAWS) / 8
        whole = value[:, :, None, None].expand(size, DRAWS, TOKENS, WIDTH).float()
        features.publish_features(folder, number, first=first, unconditional=whole, difference=-whole, dtype=dtype)
        first += size
    shards.publish_index(folder, "features", num_shards=len(sizes))
    info = FeaturesInfo(
        draws=DRAWS,
        window=WINDOW,
        t_distribution="uniform",
        cache_seed=CACHE_SEED,
        tokens=TOKENS,
        width=WIDTH,
        dtype=dtype,
        teacher_block=1,
        count=sum(sizes),
    )
    records.publish(folder / "features.json", info.dump())
    return FeatureCache(folder)


@pytest.fixture(scope="session")
def latents_folder(tmp_path_factory: pytest.TempPathFactory) -> Latents:
    """21 samples in three shards."""
    return make_latents(tmp_path_factory.mktemp("latents"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    """Their features."""
    return make_features(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="session")
def build_latents() -> Callable[..., Latents]:
    """make_latents, for tests that need their own."""
    return make_latents


@pytest.fixture(scope="session")
def build_features() -> Callable[..., FeatureCache]:
    """make_features, for tests that need their own."""
    return make_features
