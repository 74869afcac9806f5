"""t from uniform numbers: its distribution, its window, and strata."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stx.data import noise, times
from stx.data.noise import Purpose
from stx.times import DISTRIBUTIONS, INTERPOLANTS, UNIFORM, Distribution

every_law = pytest.mark.parametrize(
    "law", [Distribution(name, interpolant) for name in DISTRIBUTIONS for interpolant in INTERPOLANTS], ids=str
)


def coins(count: int, seed: int = 3) -> np.ndarray:
    return noise.uniforms(seed, Purpose.TRAIN_COINS, np.arange(count), count=1)[:, 0]


def test_uniform_t_is_the_coin_itself():
    assert np.array_equal(times.times_of(coins(100), distribution=UNIFORM), coins(100))


@pytest.mark.parametrize("interpolant", INTERPOLANTS)
def test_lognormal_t_has_a_normal_logarithm_of_noise_over_latents(interpolant):
    t = times.times_of(coins(4000), distribution=Distribution("lognormal", interpolant)).astype(np.float64)
    sigma = t / (1 - t) if interpolant == "linear" else np.tan(np.pi / 2 * t)
    assert stats.kstest(np.log(sigma), "norm").pvalue > 0.01


@every_law
def test_inside_a_window_t_is_distributed_as_all_t_that_fall_there(law):
    whole = times.times_of(coins(8000), distribution=law)
    chosen = whole[(whole >= np.float32(0.4)) & (whole <= np.float32(0.7))]
    inside = times.times_of(coins(4000, seed=4), distribution=law, window=(0.4, 0.7))
    assert inside.dtype == np.float32
    assert np.float32(0.4) <= inside.min() < 0.41
    assert 0.69 < inside.max() <= np.float32(0.7)
    assert stats.ks_2samp(chosen, inside).pvalue > 0.01


batches = st.integers(1, 200)


@given(batch=batches)
def test_strata_are_a_permutation(batch):
    assert sorted(times.strata(batch)) == list(range(batch))


@pytest.mark.parametrize("bits", [0, 1, 5, 8])
def test_strata_of_a_power_of_two_are_reversed_bits(bits):
    expected = [int(f"{row:0{bits}b}"[::-1], 2) if bits else 0 for row in range(2**bits)]
    assert times.strata(2**bits).tolist() == expected


@given(batch=batches, seed=st.integers(0, 2**32), number=st.integers(0, 10**9))
@settings(max_examples=60, deadline=None)
def test_a_batch_and_its_aligned_slices_have_one_row_in_each_share(batch, seed, number):
    positions = number * batch + np.arange(batch)
    uniform = noise.uniforms(seed, Purpose.TRAIN_COINS, positions, count=1)[:, 0]
    found = times.stratified(uniform, positions, seed=seed, batch=batch).astype(np.float64)
    shift = noise.uniforms(seed, Purpose.TRAIN_STRATA, [number], count=1)[0, 0]
    slices = [batch, *(2**power for power in range(8) if batch % 2**power == 0)]
    for size in slices:
        places = ((found - shift) % 1.0 * size).reshape(-1, size)
        # a place was rounded down by less than 2^-24, maybe beyond the edge of its share
        assert all(np.abs(np.sort(row) - np.arange(size) - 0.5).max() <= 0.5 + 1e-4 for row in places), size


@given(batch=batches, first=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_the_number_of_an_image_depends_on_its_place_only(batch, first):
    positions = first + np.arange(2 * batch)
    uniform = noise.uniforms(1, Purpose.TRAIN_COINS, positions, count=1)[:, 0]
    together = times.stratified(uniform, positions, seed=1, batch=batch)
    alone = [
        times.stratified(uniform[row : row + 1], positions[row : row + 1], seed=1, batch=batch)[0]
        for row in range(2 * batch)
    ]
    assert np.array_equal(together, alone)
    assert ((together > 0) & (together < 1)).all()


@pytest.mark.parametrize("row", [0, 5])
def test_each_row_alone_is_uniform(row):
    positions = np.arange(3000) * 6 + row
    uniform = noise.uniforms(2, Purpose.TRAIN_COINS, positions, count=1)[:, 0]
    assert stats.kstest(times.stratified(uniform, positions, seed=2, batch=6), "uniform").pvalue > 0.01


def test_a_narrow_lognormal_window_at_the_end_has_a_t_for_every_number():
    uniform = np.array([2**-25, 0.5, 1 - 2**-24], dtype=np.float32)
    t = times.times_of(uniform, distribution=Distribution("lognormal", "linear"), window=(0.9999, 1.0))
    assert ((t >= np.float32(0.9999)) & (t <= 1)).all()
