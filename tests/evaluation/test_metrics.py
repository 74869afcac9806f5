"""Every metric against a case whose value is known."""

import math

import pytest
import torch

from stx.evaluation import frechet_distance, label_accuracy, precision_recall
from stx.evaluation.base import Extracted
from stx.stages import evaluate


def extracted(features: torch.Tensor, *, logits: torch.Tensor | None = None) -> Extracted:
    count = len(features)
    return Extracted(
        features, torch.zeros(count, 2) if logits is None else logits, torch.zeros(count, dtype=torch.int64)
    )


def normal(count: int, *, seed: int, mean: float = 0.0, std: float = 1.0, width: int = 8) -> Extracted:
    generator = torch.Generator().manual_seed(seed)
    return extracted(mean + std * torch.randn(count, width, generator=generator))


def test_a_set_has_no_distance_from_itself() -> None:
    same = normal(500, seed=0)
    assert frechet_distance.compute(same, same)["frechet_distance"] == pytest.approx(0.0, abs=1e-8)


def test_the_distance_of_shifted_and_scaled_normals_is_the_formula() -> None:
    base = normal(400, seed=0)
    moved = base._replace(features=2.0 * base.features + 3.0)
    mean = base.features.double().mean(0)
    trace = float(torch.cov(base.features.double().T).trace())
    expected = float((mean + 3.0).square().sum()) + trace  # S2 = 4 S1: tr(S1 + 4 S1 - 2 * 2 S1) = tr(S1)
    assert frechet_distance.compute(moved, base)["frechet_distance"] == pytest.approx(expected, rel=1e-5)


def test_fewer_samples_than_features_still_give_a_finite_distance() -> None:
    found = frechet_distance.compute(normal(5, seed=0, width=32), normal(200, seed=1, width=32))
    assert math.isfinite(found["frechet_distance"])


def test_label_accuracy_compares_with_the_labels_that_were_asked_for() -> None:
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [5.0, 4.0], [1.0, 0.0]])
    assert label_accuracy.compute(extracted(torch.zeros(4, 3), logits=logits), normal(3, seed=0)) == {
        "label_accuracy": 0.75
    }


def test_precision_needs_more_images_than_neighbours_and_no_more_than_the_plan_asks_for() -> None:
    few, many = normal(precision_recall.NEIGHBOURS + 1, seed=0), normal(20, seed=1)
    assert evaluate.NEIGHBOURS == precision_recall.NEIGHBOURS
    for sets in ((few, many), (many, few)):
        assert all(0 <= score <= 1 for score in precision_recall.compute(*sets).values())


def test_precision_falls_off_the_manifold_and_recall_when_modes_are_missing() -> None:
    near, far = normal(200, seed=0, std=0.1), normal(200, seed=1, mean=50.0, std=0.1)
    both = extracted(torch.cat([near.features, far.features]))
    one_mode = precision_recall.compute(near, both)
    astray = precision_recall.compute(both, near)
    assert one_mode["precision"] > 0.9
    assert one_mode["recall"] == pytest.approx(0.5, abs=0.05)
    assert astray["precision"] == pytest.approx(0.5, abs=0.05)
    assert astray["recall"] > 0.9
