from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stx.data import device_noise, noise
from stx.data.noise import Purpose

# Known answers of Philox4x64-10, from the Random123 distribution: (counter, key, words).
ONES = 2**64 - 1
PI = (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89)
PI_KEY = (0x452821E638D01377, 0xBE5466CF34E90C6C)
KNOWN = [
    ((0,) * 4, (0, 0), (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B)),
    ((ONES,) * 4, (ONES, ONES), (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0)),
    (PI, PI_KEY, (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6)),
]

# Recorded once: whoever moves one of these numbers changes every result in every store.
RECORDED_WORDS = [[4188131702, 3493329091, 1277232997], [1502470565, 4123950514, 1642622411]]
RECORDED_DRAW = [[3413534025, 1673828375, 3539183243]]
RECORDED_NORMALS = [
    0.204108626,
    -0.303812981,
    -1.23703325,
    0.652308106,
    0.0933702886,
    -0.566458464,
    0.946173489,
    0.382506102,
]
RECORDED_ORDER = [0, 7, 1, 6, 3, 2, 5, 4]
RECORDED_SEED = 7916537264935705218


def signed(values):
    return torch.tensor([value - 2**64 if value >= 2**63 else value for value in values])


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_torch_philox_gives_the_known_answers(counter, key, expected):
    got = device_noise.philox(signed(counter)[:, None], key=key)[:, 0]
    assert got.equal(signed(expected))


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_numpy_philox_gives_the_known_answers(counter, key, expected):
    value = (sum(word << 64 * place for place, word in enumerate(counter)) - 1) % 2**256  # numpy increments first
    generator = np.random.Philox(counter=value, key=key[0] | key[1] << 64)
    assert tuple(int(word) for word in generator.random_raw(4)) == expected


seeds = st.integers(0, 2**63)
indices = st.lists(st.integers(0, 2**40), min_size=1, max_size=5)
draws = st.integers(0, 2**31)


@given(seed=seeds, index=indices, draw=draws, count=st.integers(1, 40), purpose=st.sampled_from(Purpose))
@settings(max_examples=40, deadline=None)
def test_numpy_and_torch_make_equal_words(seed, index, draw, count, purpose):
    at = {"count": count, "draw": draw}
    words = noise.words(seed, purpose, index, **at)
    assert words.dtype == np.uint32
    assert np.array_equal(words, device_noise.words(seed, purpose, torch.tensor(index), **at).numpy())


@given(seed=seeds, index=indices, draw=draws, count=st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_numpy_and_torch_make_the_same_normals(seed, index, draw, count):
    at = {"count": count, "draw": draw}
    ours = noise.normal_pairs(seed, Purpose.TRAIN_NOISE, index, **at)
    theirs = device_noise.normal_pairs(seed, Purpose.TRAIN_NOISE, torch.tensor(index), **at)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=2e-6, rtol=2e-5)


def test_pairs_are_the_halves_of_the_normals():
    pairs = noise.normal_pairs(4, Purpose.TRAIN_NOISE, [5, 9], count=7, draw=[1, 2])
    whole = noise.normals(4, Purpose.TRAIN_NOISE, [5, 9], count=14, draw=[1, 2])
    assert np.array_equal(np.concatenate(pairs, axis=1), whole)


@given(seed=seeds, index=indices, draw=draws, count=st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_a_row_depends_on_its_own_index_and_draw_only(seed, index, draw, count):
    together = noise.normals(
        seed, Purpose.TRAIN_NOISE, index, count=count, draw=[draw + row for row in range(len(index))]
    )
    for row, number in enumerate(index):
        alone = noise.normals(seed, Purpose.TRAIN_NOISE, [number], count=count, draw=draw + row)
        assert np.array_equal(together[row], alone[0])


def test_chunks_of_rows_change_no_bit(monkeypatch):
    index = np.arange(40) * 3
    whole = noise.normals(5, Purpose.SAMPLE_NOISE, index, count=100)
    monkeypatch.setattr(noise, "CHUNK_WORDS", 700)
    assert np.array_equal(whole, noise.normals(5, Purpose.SAMPLE_NOISE, index, count=100))


def test_a_longer_row_begins_with_the_shorter_one():
    short = noise.words(1, Purpose.TRAIN_COINS, [7], count=3)
    assert np.array_equal(short[0], noise.words(1, Purpose.TRAIN_COINS, [7], count=50)[0, :3])


def test_recorded_values_stay():
    assert noise.words(0, Purpose.TRAIN_NOISE, [0, 1], count=3).tolist() == RECORDED_WORDS
    assert noise.words(7, Purpose.FEATURE_NOISE, [12], count=3, draw=2).tolist() == RECORDED_DRAW
    np.testing.assert_allclose(noise.normals(0, Purpose.TRAIN_NOISE, [0], count=8)[0], RECORDED_NORMALS, rtol=1e-6)
    assert noise.permutation(3, Purpose.TRAIN_ORDER, 1, size=8).tolist() == RECORDED_ORDER
    assert noise.init_seed(0, Purpose.TRAIN_INIT) == RECORDED_SEED


def test_purposes_seeds_and_draws_share_no_words():
    rows = [
        noise.words(seed, purpose, [5], count=64, draw=draw)[0]
        for seed in (0, 1)
        for purpose in Purpose
        for draw in (0, 1)
    ]
    assert len(np.unique(np.concatenate(rows))) == len(rows) * 64
    assert len({int(purpose) for purpose in Purpose}) == len(Purpose)


def test_uniforms_are_open_and_uniform():
    values = noise.uniforms(11, Purpose.TRAIN_COINS, np.arange(200), count=500).ravel()
    assert 0 < values.min() < 1e-4
    assert 1 - 1e-4 < values.max() < 1
    assert stats.kstest(values, "uniform").pvalue > 1e-3


def test_the_smallest_and_largest_word_stay_inside_the_open_interval(monkeypatch):
    extremes = np.array([0, 255, 2**32 - 1], dtype=np.uint32)
    monkeypatch.setattr(noise, "_raw_rows", lambda *_, **__: iter([extremes]))
    values = noise.uniforms(0, Purpose.TRAIN_COINS, [0], count=3)[0]
    assert values.tolist() == [2.0**-25, 2.0**-25, 1 - 2.0**-24]


def test_normals_are_standard_normal_and_uncorrelated():
    values = noise.normals(12, Purpose.TRAIN_NOISE, np.arange(100), count=1000)
    assert np.isfinite(values).all()
    assert abs(values.mean()) < 0.01
    assert abs(values.var() - 1) < 0.02
    assert stats.kstest(values.ravel(), "norm").pvalue > 1e-3
    first, second = values[:, :500].ravel(), values[:, 500:].ravel()  # the two numbers of one Box-Muller pair
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02
    assert abs(np.corrcoef(first**2, second**2)[0, 1]) < 0.02


def test_threads_do_not_share_scratch_memory():
    def job(seed):
        return noise.normals(seed, Purpose.TRAIN_NOISE, np.arange(50), count=500)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(job, range(8)))
    assert all(np.array_equal(values, job(seed)) for seed, values in enumerate(found))


def test_three_words_give_four_numbers_and_no_bit_is_used_twice():
    raw = np.array([[0x11223344, 0x55667788, 0x99AABBCC]], dtype=np.uint32)
    out = np.empty((1, 4), dtype=np.uint32)
    noise._numbers_of(raw, out=out)
    assert [f"{number:06x}" for number in out[0]] == ["112233", "556677", "99aabb", "cc8844"]


def test_permutation_is_one():
    order = noise.permutation(1, Purpose.IMAGES_SPLIT, 0, size=1000)
    assert sorted(order.tolist()) == list(range(1000))
    assert noise.permutation(1, Purpose.IMAGES_SPLIT, 0, size=0).tolist() == []
