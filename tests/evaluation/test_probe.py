"""Linear probes."""

import numpy as np
import pytest

from stx.evaluation.probe import Labelled, accuracy


def blobs(seed: int, *, count: int = 300, spread: float = 0.3, offset: float = 0.0) -> Labelled:
    """Five classes around fixed corners."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, count)
    corners = np.random.default_rng(7).normal(size=(5, 8))
    return Labelled((corners[labels] + spread * rng.normal(size=(count, 8)) + offset).astype(np.float32), labels)


def test_separable_classes_are_told_apart_and_noise_is_not():
    assert accuracy(blobs(0), blobs(1), num_classes=5, ridge=1e-3) > 0.97
    shuffled = Labelled(blobs(0).features, np.random.default_rng(3).permutation(blobs(0).labels))
    assert accuracy(shuffled, blobs(1), num_classes=5, ridge=1e-3) < 0.45


def test_it_is_the_ridge_solution():
    train, test, ridge = blobs(0, spread=1.5), blobs(1, spread=1.5), 0.3
    mean, deviation = train.features.astype(float).mean(0), train.features.astype(float).std(0)
    z = np.c_[(train.features - mean) / deviation]
    stacked = np.r_[z / np.sqrt(len(z)), np.sqrt(ridge) * np.eye(8)]  # ridge as least squares on added rows
    hot = np.eye(5)[train.labels]
    weights = np.linalg.lstsq(stacked, np.r_[(hot - hot.mean(0)) / np.sqrt(len(z)), np.zeros((8, 5))], rcond=None)[0]
    told = (((test.features - mean) / deviation) @ weights + hot.mean(0)).argmax(1)
    assert accuracy(train, test, num_classes=5, ridge=ridge) == np.mean(told == test.labels)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_the_scale_of_features_does_not_matter(scale):
    scaled = [Labelled(side.features * np.float32(scale), side.labels) for side in (blobs(0), blobs(1))]
    assert accuracy(*scaled, num_classes=5, ridge=1e-2) == accuracy(blobs(0), blobs(1), num_classes=5, ridge=1e-2)


def test_a_feature_that_never_varies_is_harmless():
    def widened(side, value):
        return Labelled(np.c_[side.features, np.full(len(side.labels), value, np.float32)], side.labels)

    plain = accuracy(blobs(0), blobs(1), num_classes=5, ridge=1e-3)
    assert accuracy(widened(blobs(0), 0.1), widened(blobs(1), 5.0), num_classes=5, ridge=1e-3) == plain


def test_a_class_without_training_rows_is_never_told():
    train = blobs(0)
    kept = train.labels != 2
    test = Labelled(blobs(1).features[blobs(1).labels == 2], blobs(1).labels[blobs(1).labels == 2])
    assert accuracy(Labelled(train.features[kept], train.labels[kept]), test, num_classes=5, ridge=1e-3) == 0.0
