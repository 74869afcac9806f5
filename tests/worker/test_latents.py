"""Moments in shards."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from stx import records
from stx.data.latents import Latents
from stx.data.loader import TrainLoader
from stx.model import rows
from stx.spec import Input
from stx.worker import autoencoder, images, latents
from stx.worker.attempt import InputPath, Yielded
from stx.worker.images import Split, read_split


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


def test_images_of_another_resolution_than_the_autoencoders_have_latents_of_their_own_size(workshop, pipeline) -> None:
    larger = workshop.attempt("images", science={"source": "mnist5k", "resolution": 40, "held_out": 10, "limit": 40})
    images.run(larger)
    source = pipeline.images._replace(input=Input("images", larger.key), path=larger.stage.path)
    inputs = {"images": source, "autoencoder": pipeline.autoencoder}
    attempt = workshop.attempt("latents", science={"dtype": "fp32", "batch": 8, "shard": 24}, inputs=inputs)
    latents.run(attempt)
    found = Latents(attempt.stage.payload)
    assert found.shape == found.moments([0])[0].shape[1:] == (4, 10, 10)
    (batch,) = TrainLoader(found, seed=0, global_batch=8, micro_batch=8).step(0)
    assert batch.latents.shape == batch.noise.shape == (8, 4, 10, 10)


@pytest.mark.parametrize(
    ("chunks_before_the_stop", "shards_before_the_stop"), [(1, 0), (3, 1), (4, 1), (6, 2)], ids=str
)
def test_published_shards_are_not_made_again(
    pipeline, stop, monkeypatch, chunks_before_the_stop: int, shards_before_the_stop: int
) -> None:
    first = pipeline.latents_attempt(seed=1)
    with monkeypatch.context() as patch:
        asked = iter(range(chunks_before_the_stop + shards_before_the_stop))
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


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_any_number_of_ranks_gives_the_same_payload(pipeline, workshop, payload_digest, ranks: int) -> None:
    alone = pipeline.latents_attempt(seed=1)
    latents.run(alone)
    expected = payload_digest(alone)
    shutil.rmtree(alone.stage.path)
    attempt = pipeline.latents_attempt(seed=1)
    for rank in reversed(range(ranks)):
        assert not attempt.stage.result.artifact.exists(), "rank 0 concludes, nobody else"
        latents.run(replace(attempt, rank=rank, world_size=ranks))
    assert payload_digest(attempt) == expected


def test_flips_add_every_image_once_more_mirrored_in_the_same_classes(workshop, pipeline) -> None:
    inputs = {"images": pipeline.images, "autoencoder": pipeline.autoencoder}
    science = {"dtype": "fp32", "batch": 24, "shard": 48, "flips": True}
    attempt = workshop.attempt("latents", science=science, inputs=inputs)
    latents.run(attempt)
    found, train = Latents(attempt.stage.payload), train_split(pipeline)
    loaded = autoencoder.load(pipeline.autoencoder.path / "payload")
    both = torch.cat([train.images, train.images.flip(-1)])
    expected = rows.chunked(loaded.encode, both, batch=24).numpy()
    mean, std = found.moments(np.arange(128))
    assert np.allclose(np.concatenate([mean, std], axis=1), expected, atol=1e-3)
    assert np.array_equal(found.labels, np.tile(train.labels.numpy(), 2))
    assert (found.info.count, list(found.sizes)) == (128, [48, 48, 32])
    assert not np.allclose(mean[:64], mean[64:], atol=1e-2), "the images are not symmetric"


def test_an_epoch_of_flips_has_each_image_and_its_mirror_once(workshop, pipeline) -> None:
    inputs = {"images": pipeline.images, "autoencoder": pipeline.autoencoder}
    science = {"dtype": "fp32", "batch": 24, "shard": 24, "flips": True}
    attempt = workshop.attempt("latents", science=science, inputs=inputs)
    latents.run(attempt)
    found = Latents(attempt.stage.payload)
    loader = TrainLoader(found, seed=0, global_batch=32, micro_batch=32, order_window=2)
    batches = [batch for first in range(0, 128, 32) for batch in loader.step(first)]
    samples = torch.cat([batch.samples for batch in batches])
    assert sorted(samples.tolist()) == list(range(128))
    labels = torch.cat([batch.labels for batch in batches])
    assert torch.equal(labels, torch.as_tensor(found.labels)[samples])
    once = np.bincount(train_split(pipeline).labels.numpy())
    assert np.array_equal(np.bincount(labels.numpy()), 2 * once)


def test_images_are_read_a_chunk_at_a_time(pipeline, monkeypatch) -> None:
    asked = []

    class Lazy:
        def __init__(self, images):
            self._images = images

        def __getitem__(self, rows):
            asked.append(range(*rows.indices(len(self._images))))
            return self._images[rows]

    attempt, whole = pipeline.latents_attempt(seed=2), train_split(pipeline)
    monkeypatch.setattr(latents, "read_split", lambda *_: Split(Lazy(whole.images), whole.labels))
    latents.run(attempt)
    assert [len(chunk) for chunk in asked] == [8] * 8
    assert [row for chunk in asked for row in chunk] == list(range(64))


def test_half_precision_is_an_option(workshop, pipeline) -> None:
    inputs = {"images": pipeline.images, "autoencoder": pipeline.autoencoder}
    attempt = workshop.attempt("latents", science={"dtype": "fp16", "batch": 8, "shard": 64}, inputs=inputs)
    latents.run(attempt)
    half, _ = Latents(attempt.stage.payload).moments(np.arange(64))
    full, _ = Latents(pipeline.latents.path / "payload").moments(np.arange(64))
    assert half.dtype == np.float32
    assert not np.array_equal(half, full)
    assert torch.allclose(torch.from_numpy(half), torch.from_numpy(full), rtol=1e-3, atol=1e-3)
