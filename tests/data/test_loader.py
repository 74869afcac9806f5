import os
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stx.data import noise
from stx.data.features import draw_features
from stx.data.latents import scaled
from stx.data.loader import Batch, TrainLoader
from stx.data.noise import Purpose
from stx.data.order import Order
from stx.data.shards import shard_path
from stx.errors import ConfigError, DataError
from stx.times import UNIFORM, Distribution

WINDOW = (0.4, 0.7)
TENSORS = ("samples", "latents", "noise", "t", "labels", "dropped_labels", "in_window")


def make_loader(latents, **changes) -> TrainLoader:
    options = {
        "seed": 3,
        "global_batch": 16,
        "micro_batch": 4,
        "label_dropout": 0.3,
        "window": WINDOW,
        "order_window": 2,
    }
    return TrainLoader(latents, **options | changes)


def joined(batches: list[Batch]) -> dict[str, torch.Tensor]:
    found = {name: torch.cat([getattr(batch, name) for batch in batches]) for name in TENSORS}
    if batches[0].features is not None:
        found["unconditional"] = torch.cat([batch.features.unconditional for batch in batches])
        found["difference"] = torch.cat([batch.features.difference for batch in batches])
    return found


def assert_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.equal(theirs[name]), name


@given(
    world_size=st.sampled_from([1, 2, 4]),
    micro_batch=st.sampled_from([1, 2, 4]),
    step=st.integers(0, 10**6),
    seed=st.integers(0, 2**40),
    cached=st.booleans(),
    stratified=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_any_ranks_and_micro_batches_see_the_one_global_batch(
    latents_folder, cache, world_size, micro_batch, step, seed, cached, stratified
):
    first, options = step * 16, {"seed": seed, "features": cache if cached else None, "stratified_t": stratified}
    whole = make_loader(latents_folder, micro_batch=16, **options).step(first)
    parts = [
        batch
        for rank in range(world_size)
        for batch in make_loader(
            latents_folder, micro_batch=micro_batch, rank=rank, world_size=world_size, **options
        ).step(first)
    ]
    assert_equal(joined(whole), joined(parts))
    assert [batch.first for batch in parts] == list(range(first, first + 16, micro_batch))
    assert {batch.window_rows for batch in [*whole, *parts]} == {int(whole[0].in_window.sum())}
    assert {batch.global_batch for batch in parts} == {16}


def test_a_row_is_what_the_docstring_says(latents_folder):
    (batch,) = make_loader(latents_folder, micro_batch=16).step(160)
    n = np.arange(160, 176)
    t, drop, _ = noise.uniforms(3, Purpose.TRAIN_COINS, n, count=3).T
    samples = Order(latents_folder.sizes, seed=3, window=2).indices(n)
    drawn = noise.normals(3, Purpose.TRAIN_NOISE, n, count=64).reshape(16, 2, 2, 4, 4)
    mean, std = latents_folder.moments(samples)
    assert np.array_equal(batch.samples, samples)
    assert np.array_equal(batch.t, t)
    assert np.array_equal(batch.noise, drawn[:, 1])
    assert np.array_equal(batch.latents, scaled(mean, std, drawn[:, 0], scale=0.5, shift=0.25))
    assert np.array_equal(batch.labels, samples % 5)
    assert np.array_equal(batch.dropped_labels, np.where(drop < np.float32(0.3), 5, samples % 5))
    assert np.array_equal(batch.in_window, (t >= np.float32(0.4)) & (t <= np.float32(0.7)))
    assert batch.features is None


def test_a_cached_row_takes_the_noise_and_t_its_features_were_made_with(latents_folder, cache):
    loader = make_loader(latents_folder, micro_batch=16, features=cache)
    own = joined(make_loader(latents_folder, micro_batch=16).step(0))
    seen = 0
    for first in range(0, 160, 16):
        (batch,) = loader.step(first)
        rows = batch.in_window.numpy()
        samples = batch.samples.numpy()[rows]
        # The features say which draw they are of: sample + draw / 8.
        draws = ((batch.features.unconditional[:, 0, 0].numpy() - samples) * 8).astype(int)
        drawn = draw_features(99, samples, draws, shape=(2, 4, 4), window=WINDOW, distribution=UNIFORM)
        mean, std = latents_folder.moments(samples)
        assert np.array_equal(batch.t.numpy()[rows], drawn.t)
        assert np.array_equal(batch.noise.numpy()[rows], drawn.noise)
        expected = scaled(mean, std, drawn.posterior_noise, scale=0.5, shift=0.25)
        assert np.array_equal(batch.latents.numpy()[rows], expected)
        seen += len(rows)
        if first == 0:
            for name in ("latents", "noise", "t"):
                assert getattr(batch, name)[~batch.in_window].equal(own[name][~batch.in_window])
    assert seen > 20


def test_counts_masks_and_labels_are_the_same_with_a_cache_and_without(latents_folder, cache):
    online = joined(make_loader(latents_folder).step(32))
    cached = joined(make_loader(latents_folder, features=cache).step(32))
    for name in ("samples", "labels", "dropped_labels", "in_window"):
        assert online[name].equal(cached[name]), name


def test_every_draw_of_the_cache_is_used_alike(latents_folder, cache):
    loader = make_loader(latents_folder, global_batch=512, micro_batch=512, features=cache)
    (batch,) = loader.step(0)
    draws = (batch.features.unconditional[:, 0, 0] - batch.samples[batch.in_window]) * 8
    share = np.bincount(draws.long().numpy(), minlength=3) / len(draws)
    assert np.abs(share - 1 / 3).max() < 0.12


def test_nobody_uses_the_window(latents_folder):
    for batch in make_loader(latents_folder, window=None).step(0):
        assert not batch.in_window.any()
        assert batch.window_rows == 0


def test_the_window_ends_at_stop_images(latents_folder, cache):
    loader = make_loader(latents_folder, stop_images=32, features=cache)
    without = make_loader(latents_folder, window=None)
    assert loader.step(16)[0].window_rows > 0
    after = loader.step(32)
    assert after[0].window_rows == 0
    assert sum(len(batch.features.unconditional) for batch in after) == 0
    for ours, theirs in zip(after, without.step(32), strict=True):
        for name in TENSORS:
            assert getattr(ours, name).equal(getattr(theirs, name))


def test_the_share_of_rows_in_the_window_and_of_dropped_labels(latents_folder):
    (batch,) = make_loader(latents_folder, global_batch=2000, micro_batch=2000).step(0)
    assert batch.window_rows / 2000 == pytest.approx(0.3, abs=0.04)
    assert (batch.dropped_labels == 5).float().mean().item() == pytest.approx(0.3, abs=0.04)


def test_stratified_t_makes_the_rows_in_the_window_as_many_in_every_batch(latents_folder):
    counts = {
        stratified: [
            make_loader(latents_folder, global_batch=64, stratified_t=stratified).step(first)[0].window_rows
            for first in range(0, 640, 64)
        ]
        for stratified in (False, True)
    }
    assert set(counts[True]) <= {18, 19, 20}, "0.3 x 64 is 19.2"
    assert np.std(counts[False]) > 2


def test_t_follows_the_distribution_and_the_rest_of_a_row_does_not(latents_folder):
    plain = joined(make_loader(latents_folder).step(16))
    law = Distribution("lognormal", "cosine")
    other = joined(make_loader(latents_folder, distribution=law).step(16))
    assert other["t"].tolist() == pytest.approx([law.quantile(t) for t in plain["t"].tolist()])
    for name in ("samples", "latents", "noise", "labels", "dropped_labels"):
        assert other[name].equal(plain[name]), name


def test_no_label_is_dropped_at_zero(latents_folder):
    for batch in make_loader(latents_folder, label_dropout=0.0).step(0):
        assert batch.dropped_labels.equal(batch.labels)


@pytest.mark.parametrize("cached", [False, True])
def test_noise_made_on_the_device_is_the_noise_made_by_the_loader(latents_folder, cache, cached):
    features = cache if cached else None
    ours = joined(make_loader(latents_folder, features=features).step(48))
    theirs = joined(make_loader(latents_folder, features=features, noise_on="device").step(48))
    for name, value in ours.items():
        if name in ("latents", "noise"):
            torch.testing.assert_close(theirs[name], value, rtol=2e-5, atol=2e-6)
        else:
            assert theirs[name].equal(value), name


def test_prefetched_steps_are_the_same_as_asked_for_ones(latents_folder, cache):
    loader = make_loader(latents_folder, features=cache)
    with loader.batches(32, until=32 + 5 * 16) as steps:
        found = list(steps)
    assert [step[0].first for step in found] == [32, 48, 64, 80, 96]
    for step in found:
        assert_equal(joined(step), joined(loader.step(step[0].first)))


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("loader")]


def test_the_thread_ends_with_the_context(latents_folder):
    with make_loader(latents_folder).batches(0) as steps:
        next(steps)
        next(steps)
        assert loader_threads()
    assert not loader_threads()


def test_the_thread_ends_when_the_consumer_fails(latents_folder):
    def consume() -> None:
        with make_loader(latents_folder).batches(0) as steps:
            next(steps)
            raise KeyError("the step")

    with pytest.raises(KeyError, match="the step"):
        consume()
    assert not loader_threads()


def test_a_damaged_shard_is_raised_in_the_consumer(build_latents, tmp_path):
    latents = build_latents(tmp_path)
    os.truncate(shard_path(tmp_path, "train", 1), 2000)
    with make_loader(latents).batches(0) as steps, pytest.raises(DataError, match=r"train-00001\.tar"):
        list(zip(range(3), steps, strict=False))
    assert not loader_threads()


def test_a_cache_of_another_window_or_dataset_is_refused(latents_folder, cache, build_latents, tmp_path):
    with pytest.raises(ConfigError, match="window"):
        make_loader(latents_folder, features=cache, window=(0.4, 0.8))
    with pytest.raises(ConfigError, match="lognormal"):
        make_loader(latents_folder, features=cache, distribution=Distribution("lognormal", "linear"))
    with pytest.raises(ConfigError, match="21 samples"):
        make_loader(build_latents(tmp_path, sizes=(8, 8)), features=cache)


def test_a_batch_that_the_ranks_do_not_divide_is_our_mistake(latents_folder):
    with pytest.raises(AssertionError, match="16 rows on 3 ranks"):
        make_loader(latents_folder, world_size=3)


def test_the_first_batch_takes_no_longer_far_into_a_run(latents_folder):
    start = time.monotonic()
    make_loader(latents_folder).step(16 * 10**9)
    assert time.monotonic() - start < 5  # skipping would take hours
