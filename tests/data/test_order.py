import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stx.data.noise import Purpose
from stx.data.order import KEPT_EPOCHS, Order, permutation

sizes = st.lists(st.integers(1, 7), min_size=1, max_size=6)
windows = st.none() | st.integers(1, 7)
seeds = st.integers(0, 2**40)


@given(sizes=sizes, seed=seeds, window=windows, epoch=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_each_epoch_is_a_permutation(sizes, seed, window, epoch):
    total = sum(sizes)
    order = Order(sizes, seed=seed, window=window).indices(np.arange(epoch * total, (epoch + 1) * total))
    assert sorted(order.tolist()) == list(range(total))


@given(
    sizes=sizes,
    seed=seeds,
    window=windows,
    world_size=st.sampled_from([1, 2, 4]),
    rows=st.integers(1, 3),
    resume=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_ranks_and_resumes_see_the_one_global_order(sizes, seed, window, world_size, rows, resume):
    batch, steps = world_size * rows, 6
    whole = Order(sizes, seed=seed, window=window).indices(range(steps * batch)).tolist()
    pieces = []
    order = Order(sizes, seed=seed, window=window)
    for step in range(steps):
        if step == resume:  # a fresh process, on another rank's memory of nothing
            order = Order(sizes, seed=seed, window=window)
        for rank in range(world_size):
            start = step * batch + rank * rows
            pieces += order.indices(range(start, start + rows)).tolist()
    assert pieces == whole


@given(sizes=sizes, seed=seeds, positions=st.lists(st.integers(0, 500), max_size=20))
@settings(max_examples=40, deadline=None)
def test_positions_may_be_asked_for_in_any_order(sizes, seed, positions):
    order = Order(sizes, seed=seed)
    together = order.indices(np.array(positions, dtype=np.int64))
    assert together.tolist() == [int(order.indices([position])[0]) for position in positions]
    assert len(order._epochs) <= KEPT_EPOCHS


def test_epochs_seeds_and_purposes_have_orders_of_their_own():
    def order(**changes):
        return permutation((50,), **{"seed": 0, "purpose": Purpose.TRAIN_ORDER, "epoch": 0, "window": None} | changes)

    others = [order(epoch=1), order(seed=1), order(purpose=Purpose.CLASSIFIER_ORDER)]
    assert all(not np.array_equal(order(), other) for other in others)


def test_a_window_reads_few_shards_at_a_time_and_mixes_them():
    sizes, window = (100,) * 40, 8
    order = permutation(sizes, seed=0, purpose=Purpose.TRAIN_ORDER, epoch=3, window=window)
    shard = order // 100
    for start in range(0, len(order), window * 100):
        part = shard[start : start + window * 100]
        assert len(np.unique(part)) == window
        assert len(np.unique(part[:64])) == window


@pytest.mark.parametrize("window", [16, None])
def test_classes_drift_little_even_when_every_shard_holds_one_class(window):
    # 10 classes, sorted, 80 shards: each shard has one class only.
    sizes, batch = (50,) * 80, 256
    order = permutation(sizes, seed=1, purpose=Purpose.TRAIN_ORDER, epoch=0, window=window)
    classes = order // 400
    counts = np.array([np.bincount(part, minlength=10) for part in np.split(classes[:3840], 15)])
    # A window of w shards holds a random tenth of w of each class: standard deviation of the share sqrt(.09 / w).
    bound = 5 * np.sqrt(0.09 / (80 if window is None else window) + 0.09 / batch)
    assert np.abs(counts / batch - 0.1).max() < bound


def test_a_window_of_all_shards_is_a_full_shuffle():
    one = permutation((4, 4), seed=0, purpose=Purpose.TRAIN_ORDER, epoch=0, window=None)
    two = permutation((4, 4), seed=0, purpose=Purpose.TRAIN_ORDER, epoch=0, window=2)
    assert np.array_equal(one, two)
