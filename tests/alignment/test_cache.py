"""The whole way of a feature (teacher, shards, loader, loss) against the teacher asked in the step, on one batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from stx import records
from stx.alignment.guided_teacher import teacher_features
from stx.data.features import SPLIT, FeatureCache, FeaturesInfo, draw_features, publish_features
from stx.data.latents import Latents, LatentsInfo, publish_latents, scaled
from stx.data.loader import TrainLoader
from stx.data.shards import publish_index
from stx.flow.interpolant import noisy_at
from stx.times import UNIFORM

COUNT, DRAWS, WINDOW, CACHE_SEED = 32, 3, (0.4, 0.7), 11


def published_latents(folder) -> Latents:
    generator = np.random.default_rng(0)
    mean = generator.standard_normal((COUNT, 4, 8, 8), dtype=np.float32)
    labels = np.arange(COUNT) % 10
    publish_latents(folder, 0, first=0, mean=mean, std=np.full_like(mean, 0.2), labels=labels, dtype="fp32")
    publish_index(folder, "train", num_shards=1)
    info = LatentsInfo(
        channels=4,
        size=8,
        num_classes=10,
        class_names=tuple("abcdefghij"),
        scale=1.3,
        shift=0.1,
        autoencoder="none",
        count=COUNT,
        dtype="fp32",
    )
    records.publish(folder / "latents.json", info.dump())
    return Latents(folder)


def published_features(folder, latents: Latents, teacher, *, dtype: str) -> FeatureCache:
    samples, draws = np.repeat(np.arange(COUNT), DRAWS), np.tile(np.arange(DRAWS), COUNT)
    drawn = draw_features(CACHE_SEED, samples, draws, shape=latents.shape, window=WINDOW, distribution=UNIFORM)
    mean, std = latents.moments(samples)
    clean = scaled(mean, std, drawn.posterior_noise, scale=latents.info.scale, shift=latents.info.shift)
    clean, noise, t, labels = (torch.from_numpy(a) for a in (clean, drawn.noise, drawn.t, latents.labels[samples]))
    features = teacher_features(teacher, noisy_at(clean, noise, t, interpolant="linear"), t, labels, block=3)
    unconditional, difference = (part.reshape(COUNT, DRAWS, 16, 32) for part in features)
    publish_features(folder, 0, first=0, unconditional=unconditional, difference=difference, dtype=dtype)
    publish_index(folder, SPLIT, num_shards=1)
    info = FeaturesInfo(
        draws=DRAWS,
        window=WINDOW,
        t_distribution="uniform",
        cache_seed=CACHE_SEED,
        tokens=16,
        width=32,
        dtype=dtype,
        teacher_block=3,
        count=COUNT,
    )
    records.publish(folder / "features.json", info.dump())
    return FeatureCache(folder)


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-6), ("bf16", 1e-4)])
@pytest.mark.parametrize("guidance", [1.0, 30.0])
def test_cached_features_are_those_of_the_batch(dtype, tolerance, guidance, tmp_path, awake, alignment, hidden):
    folders = tmp_path / "latents", tmp_path / "features"
    for folder in folders:
        folder.mkdir()
    teacher, latents = awake(99), published_latents(folders[0])
    cache = published_features(folders[1], latents, teacher, dtype=dtype)
    loader = TrainLoader(latents, seed=5, global_batch=64, micro_batch=64, window=WINDOW, features=cache)
    [batch] = loader.step(0)
    assert 10 < batch.window_rows < 30

    states = hidden(awake(1), batch, (2,))
    cached = alignment("guided_teacher", feature_width=32, guidance=guidance)(batch, states)
    online_batch = replace(batch, features=None)
    online = alignment("guided_teacher", teacher=teacher, guidance=guidance)(online_batch, states)
    for kind in ("terms", "numbers"):
        for name, value in getattr(online, kind).items():
            assert getattr(cached, kind)[name].item() == pytest.approx(value.item(), rel=tolerance)
