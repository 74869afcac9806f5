from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stx import records
from stx.data import device_noise, features
from stx.data.features import FeaturesInfo, draw_features, draw_noise, draw_times
from stx.times import UNIFORM

SHAPE = (2, 4, 4)
pairs = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 7)), min_size=1, max_size=6)


@given(seed=st.integers(0, 2**40), pairs=pairs, window=st.tuples(st.floats(0, 0.5), st.floats(0.5, 1)))
@settings(max_examples=40, deadline=None)
def test_a_draw_depends_on_seed_sample_and_number_only(seed, pairs, window):
    samples, draws = np.array(pairs).T
    together = draw_features(seed, samples, draws, shape=SHAPE, window=window, distribution=UNIFORM)
    for row, (sample, draw) in enumerate(pairs):
        alone = draw_features(seed, [sample], [draw], shape=SHAPE, window=window, distribution=UNIFORM)
        for one, many in zip(alone, together, strict=True):
            assert np.array_equal(one[0], many[row])
    low, high = np.float32(window[0]), np.float32(window[1])
    assert ((low <= together.t) & (together.t <= high)).all()


def test_times_fill_the_window():
    samples = np.arange(2000)
    t = draw_times(5, samples, samples % 4, window=(0.4, 0.7), distribution=UNIFORM)
    assert 0.4 <= t.min() < 0.401
    assert 0.699 < t.max() <= np.float32(0.7)
    assert t.mean() == pytest.approx(0.55, abs=0.01)


def test_draws_of_a_sample_differ():
    drawn = draw_features(5, [3, 3, 4], [0, 1, 0], shape=SHAPE, window=(0, 1), distribution=UNIFORM)
    assert len({float(t) for t in drawn.t}) == 3
    assert not np.array_equal(drawn.noise[0], drawn.noise[1])
    assert not np.array_equal(drawn.noise[0], drawn.posterior_noise[0])


def test_torch_makes_the_same_noise():
    samples, draws = np.array([3, 0, 8]), np.array([2, 1, 2])
    ours = draw_noise(5, samples, draws, shape=SHAPE)
    theirs = draw_noise(
        5, torch.from_numpy(samples), torch.from_numpy(draws), shape=SHAPE, pairs=device_noise.normal_pairs
    )
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_cache_gives_back_what_was_put_in(build_features, tmp_path, dtype):
    cache = build_features(tmp_path, dtype=dtype)
    cache.verify()
    samples, draws = [20, 0, 8, 8, 3], [0, 2, 1, 1, 0]
    found = cache.gather(samples, draws)
    expected = torch.tensor(samples) + torch.tensor(draws) / 8  # few bits: exact in bf16 as well
    assert found.unconditional.dtype == torch.float32
    assert found.unconditional.shape == (5, 4, 3)
    assert found.unconditional.equal(expected[:, None, None].expand(5, 4, 3))
    assert found.difference.equal(-found.unconditional)
    assert cache.gather([], []).unconditional.shape == (0, 4, 3)


def test_bf16_is_rounded_to_nearest_and_only_once():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    stored = features._stored(values, dtype="bf16")
    assert stored.dtype == np.uint16
    assert np.array_equal(features._restored(stored), values.to(torch.bfloat16).float().numpy())


def test_a_guided_target_from_bf16_keeps_the_precision_of_bf16():
    generator = torch.Generator().manual_seed(1)
    unconditional = torch.randn(1000, generator=generator)
    difference = 0.02 * torch.randn(1000, generator=generator)
    kept = [
        torch.from_numpy(features._restored(features._stored(x, dtype="bf16"))) for x in (unconditional, difference)
    ]
    exact, rounded = unconditional + 30 * difference, kept[0] + 30 * kept[1]
    assert (rounded - exact).norm() / exact.norm() < 2**-8
    # What storing f_c and f_u would have done: the rounding of both, thirty times.
    conditional = (unconditional + difference).to(torch.bfloat16).float()
    naive = kept[0] + 30 * (conditional - kept[0])
    assert (naive - exact).norm() / exact.norm() > 2**-5


def test_half_precision_input_is_our_mistake(tmp_path):
    value = torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16)
    with pytest.raises(AssertionError, match="fp32"):
        features.publish_features(tmp_path, 0, first=0, unconditional=value, difference=value, dtype="bf16")


def test_info_of_a_cosine_run_survives_its_record_and_a_linear_one_is_written_as_ever(cache):
    cosine = replace(cache.info, interpolant="cosine")
    assert FeaturesInfo.parse(cosine.dump()) == cosine
    assert "interpolant" not in cache.info.dump()


def test_info_survives_its_record(cache, tmp_path):
    records.write(tmp_path / "features.json", cache.info.dump())
    assert FeaturesInfo.parse(records.read(tmp_path / "features.json")) == cache.info
