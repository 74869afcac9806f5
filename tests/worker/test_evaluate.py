"""Scores of samples."""

import math

import numpy as np
import pytest

from stx import records
from stx.errors import DataError
from stx.worker import evaluate, sample

METRICS = ["frechet_distance", "label_accuracy", "precision_recall"]
SAMPLER = {"solver": "euler", "steps": 2, "guidance": 1.0, "interval": [0.0, 1.0]}


@pytest.fixture
def sampled(workshop, pipeline, as_source, sit_shape):
    """Makes the samples of these milestones; the sample stage."""

    def make(*counts: int):
        for count in counts:
            if count not in pipeline.run.stage.parts("train"):
                pipeline.milestone(count, seed=count)
        inputs = {
            "run": as_source(pipeline.run, whole=True),
            "latents": pipeline.latents,
            "autoencoder": pipeline.autoencoder,
        }
        science = {"num_samples": 20, "labels": "balanced", "batch": 8, "sampler": SAMPLER, "weights": "ema"}
        attempt = workshop.attempt(
            "sample", science=science, inputs=inputs, wants=counts, where={"shape": sit_shape, "interpolant": "linear"}
        )
        sample.run(attempt)
        return attempt

    return make


@pytest.fixture
def new_evaluate(workshop, pipeline, as_source):
    def make(samples, *, wants):
        inputs = {
            "samples": as_source(samples, whole=True),
            "against": pipeline.images,
            "extractor.classifier": pipeline.classifier,
        }
        return workshop.attempt("evaluate", science={"metrics": METRICS, "batch": 16}, inputs=inputs, wants=wants)

    return make


def scores_of(attempt, images: int):
    return records.read(attempt.stage.part("evaluate", images).path / "scores.json")


def test_every_score_has_its_name_and_its_whole_protocol(sampled, new_evaluate, pipeline) -> None:
    samples = sampled(320)
    attempt = new_evaluate(samples, wants=(320,))
    evaluate.run(attempt)
    found = scores_of(attempt, 320)
    assert sorted(found["scores"]) == ["frechet_distance", "label_accuracy", "precision", "recall"]
    assert all(math.isfinite(value) for value in found["scores"].values())
    assert "fid" not in str(found).lower()
    classifier = records.read(pipeline.classifier.path / "payload" / "classifier.json")
    assert found["protocol"] == {
        "num_samples": 20,
        "num_real": 64,
        "split": "train",
        "against": pipeline.images.input.key,
        "samples": samples.key,
        "extractor": {
            "classifier": pipeline.classifier.input.key,
            "feature_width": 8,
            "held_out_accuracy": classifier["held_out"]["accuracy"],
        },
        "batch": 16,
        "seed": 0,
        "labels": "balanced",
        "weights": "ema",
        "ema_decay": 0.9,
        "sample_batch": 8,
        **SAMPLER,
    }


def test_parts_come_as_their_samples_do(sampled, new_evaluate) -> None:
    samples = sampled(320)
    first = new_evaluate(samples, wants=(320, 640))
    evaluate.run(first)
    assert first.stage.parts("evaluate") == [320]
    sampled(320, 640)
    second = new_evaluate(samples, wants=(320, 640))
    evaluate.run(second)
    assert second.stage.parts("evaluate") == [320, 640]
    assert scores_of(second, 320)["scores"] != scores_of(second, 640)["scores"]


def test_scoring_again_leaves_an_equal_digest(sampled, new_evaluate, payload_digest) -> None:
    samples = sampled(320)
    first = new_evaluate(samples, wants=(320,))
    evaluate.run(first)
    before = payload_digest(first, images=320)
    for path in first.stage.part("evaluate", 320).path.iterdir():
        path.unlink()
    evaluate.run(new_evaluate(samples, wants=(320,)))
    assert payload_digest(first, images=320) == before


def test_a_damaged_sample_file_is_named(sampled, new_evaluate) -> None:
    samples = sampled(320)
    file = samples.stage.part("sample", 320).path / "samples-00001.npy"
    np.save(file, np.zeros((8, 32, 32, 1), dtype=np.uint8))
    with pytest.raises(DataError, match=r"samples-00001\.npy[\s\S]*damaged"):
        evaluate.run(new_evaluate(samples, wants=(320,)))


def test_nothing_ready_is_nothing_to_do(pipeline, workshop, as_source, new_evaluate, sampled) -> None:
    samples = sampled(320)
    attempt = new_evaluate(samples, wants=(640,))
    evaluate.run(attempt)
    assert attempt.stage.parts("evaluate") == []
