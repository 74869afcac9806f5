"""Moments in shards."""

import numpy as np
import pytest
import torch

from stx import records
from stx.data.latents import Latents
from stx.model import rows
from stx.worker import autoencoder, latents
from stx.worker.attempt import InputPath, Yielded
from stx.worker.images import read_split


def train_split(pipeline):
    source = pipeline.images
    return read_split(InputPath("images", source.input.key, None, source.path), "train")


def test_what_is_stored_are_mean_and_std_of_every_train_image_in_order(pipeline) -> None:
    found = Latents(pipeline.latents.path / "payload")
    loaded = autoencoder.load(pipeline.autoencoder.path / "payload")
    train = train_split(pipeline)
    expected = rows.chunked(loaded.encode, train.images, batch=8)
    mean, std = found.moments(np.arange(64))
    assert np.array_equal(np.concatenate([mean, std], axis=1), expected.numpy())
    assert np.array_equal(found.labels, train.labels.numpy())
    assert list(found.sizes) == [24, 24, 16]


def test_scale_shift_classes_and_the_autoencoders_digest_travel_with_the_shards(pipeline) -> None:
    info = Latents(pipeline.latents.path / "payload").info
    config = records.read(pipeline.autoencoder.path / "payload" / "config.json")
    artifact = records.read(pipeline.autoencoder.path / "artifact.json")
    assert (info.scale, info.shift) == (config["scaling_factor"], config["shift_factor"])
    assert info.autoencoder == artifact["digest"]
    assert (info.channels, info.size, info.num_classes, info.count) == (4, 8, 10, 64)
    assert len(info.class_names) == 10


@pytest.mark.parametrize("shards_before_the_stop", [1, 2])
def test_published_shards_are_not_made_again(pipeline, stop, monkeypatch, shards_before_the_stop: int) -> None:
    first = pipeline.latents_attempt(seed=1)
    with monkeypatch.context() as patch:
        asked = iter(range(shards_before_the_stop - 1))
        patch.setattr("jobs.runtime.stop_requested", lambda: next(asked, None) is None)
        with pytest.raises(Yielded):
            latents.run(first)
    payload = first.stage.payload
    kept = {path.name: path.stat().st_ino for path in payload.glob("*.tar")}
    assert len(kept) == shards_before_the_stop
    assert first.notes["images"] == 24 * shards_before_the_stop
    encoded = []
    original = autoencoder.Autoencoder.encode
    monkeypatch.setattr(
        autoencoder.Autoencoder, "encode", lambda self, images: encoded.append(len(images)) or original(self, images)
    )
    second = pipeline.latents_attempt(seed=1)
    latents.run(second)
    assert {name: (payload / name).stat().st_ino for name in kept} == kept
    assert encoded == [8] * (8 - 3 * shards_before_the_stop), "whole chunks of the missing shards, and no others"
    resumed = records.read(second.stage.result.artifact)["files"]
    for path in (second.stage.result.artifact, *payload.iterdir()):
        path.unlink()
    latents.run(pipeline.latents_attempt(seed=1))
    assert records.read(second.stage.result.artifact)["files"] == resumed


def test_half_precision_is_an_option(workshop, pipeline) -> None:
    inputs = {"images": pipeline.images, "autoencoder": pipeline.autoencoder}
    attempt = workshop.attempt("latents", science={"dtype": "fp16", "batch": 8, "shard": 64}, inputs=inputs)
    latents.run(attempt)
    half, _ = Latents(attempt.stage.payload).moments(np.arange(64))
    full, _ = Latents(pipeline.latents.path / "payload").moments(np.arange(64))
    assert half.dtype == np.float32
    assert not np.array_equal(half, full)
    assert torch.allclose(torch.from_numpy(half), torch.from_numpy(full), rtol=1e-3, atol=1e-3)
