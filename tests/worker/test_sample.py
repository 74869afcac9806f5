"""Samples of a run's milestones."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from stx.errors import DataError
from stx.worker import sample
from stx.worker.attempt import Yielded

SCIENCE = {
    "num_samples": 20,
    "labels": "balanced",
    "batch": 8,
    "sampler": {"solver": "euler", "steps": 3, "guidance": 1.0, "interval": [0.0, 1.0]},
    "weights": "ema",
}
SDE = SCIENCE["sampler"] | {"solver": "sde", "steps": 4}


@pytest.fixture
def new_sample(workshop, pipeline, as_source, sit_shape):
    def make(*, wants=(320,), **science):
        inputs = {
            "run": as_source(pipeline.run, whole=True),
            "latents": pipeline.latents,
            "autoencoder": pipeline.autoencoder,
        }
        return workshop.attempt(
            "sample",
            science=SCIENCE | science,
            inputs=inputs,
            wants=wants,
            where={"shape": sit_shape, "interpolant": "linear"},
        )

    return make


def images_of(attempt, images: int) -> np.ndarray:
    files = sorted(attempt.stage.part("sample", images).path.glob("samples-*.npy"))
    return np.concatenate([np.load(file) for file in files])


def test_a_part_holds_balanced_labels_and_one_file_a_chunk(pipeline, new_sample) -> None:
    pipeline.milestone(320, seed=1)
    attempt = new_sample()
    sample.run(attempt)
    folder = attempt.stage.part("sample", 320).path
    assert sorted(path.name for path in folder.glob("*.npy")) == [
        "labels.npy",
        "samples-00000.npy",
        "samples-00001.npy",
        "samples-00002.npy",
    ]
    found = images_of(attempt, 320)
    assert (found.shape, found.dtype) == ((20, 32, 32, 1), np.uint8)
    assert np.load(folder / "labels.npy").tolist() == [index % 10 for index in range(20)]
    assert attempt.stage.parts("sample") == [320]


def test_only_what_is_wanted_and_ready_is_made_and_the_rest_later(pipeline, new_sample) -> None:
    pipeline.milestone(160, seed=5)
    pipeline.milestone(320, seed=1)
    first = new_sample(wants=(320, 640))
    sample.run(first)
    assert first.stage.parts("sample") == [320]
    made = first.stage.part("sample", 320).artifact.stat().st_mtime_ns
    pipeline.milestone(640, seed=3)
    second = new_sample(wants=(320, 640))
    sample.run(second)
    assert second.stage.parts("sample") == [320, 640]
    assert first.stage.part("sample", 320).artifact.stat().st_mtime_ns == made


def test_more_samples_begin_with_the_same_ones(pipeline, new_sample) -> None:
    pipeline.milestone(320, seed=1)
    few, many = new_sample(), new_sample(num_samples=30)
    sample.run(few)
    sample.run(many)
    assert np.array_equal(images_of(few, 320), images_of(many, 320)[:20])


def test_weights_seed_and_guidance_matter_and_the_interval_can_take_guidance_back(pipeline, new_sample) -> None:
    pipeline.milestone(320, seed=1)
    guided = SCIENCE["sampler"] | {"guidance": 4.0}
    settings = {
        "plain": {},
        "raw": {"weights": "raw"},
        "seed": {"seed": 1},
        "guided": {"sampler": guided},
        "nowhere": {"sampler": guided | {"interval": [0.01, 0.02]}},
    }
    found = {}
    for name, science in settings.items():
        attempt = new_sample(**science)
        sample.run(attempt)
        found[name] = images_of(attempt, 320)
    for name in ("raw", "seed", "guided"):
        assert not np.array_equal(found["plain"], found[name]), name
    assert np.array_equal(found["plain"], found["nowhere"])


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("sampler", [SCIENCE["sampler"], SDE | {"guidance": 2.0, "interval": [0.0, 0.65]}])
def test_any_number_of_ranks_makes_the_same_bytes(pipeline, new_sample, payload_digest, sampler, ranks) -> None:
    pipeline.milestone(320, seed=1)
    attempt = new_sample(sampler=sampler)
    sample.run(attempt)
    alone = payload_digest(attempt, images=320)
    for path in attempt.stage.part("sample", 320).path.iterdir():
        path.unlink()
    shared = new_sample(sampler=sampler)
    for rank in reversed(range(ranks)):
        sample.run(replace(shared, rank=rank, world_size=ranks))
        if rank:
            assert attempt.stage.parts("sample") == [], "rank 0 concludes"
    assert payload_digest(shared, images=320) == alone


def test_noise_of_the_sde_is_of_seed_sample_and_step(pipeline, new_sample) -> None:
    pipeline.milestone(320, seed=1)
    found = {}
    for name, science in {"few": {}, "many": {"num_samples": 30}, "seed": {"seed": 1}}.items():
        attempt = new_sample(sampler=SDE, **science)
        sample.run(attempt)
        found[name] = images_of(attempt, 320)
    assert np.array_equal(found["few"], found["many"][:20])
    assert not np.array_equal(found["few"], found["seed"])
    assert not np.array_equal(found["few"][0], found["few"][10]), "equal labels, other noise"


def test_solvers_interpolant_and_last_step_matter(pipeline, new_sample, sit_of_seed) -> None:
    labels, numbers = np.arange(4), np.arange(4)
    ways = [SCIENCE["sampler"], SCIENCE["sampler"] | {"solver": "heun"}, SDE, SDE | {"last_step": 0.2}]
    found = [
        sample.sampled(
            sit_of_seed(1), numbers, torch.from_numpy(labels), seed=0, sampler=sampler, interpolant=interpolant
        )
        for sampler, interpolant in (*((way, "linear") for way in ways), (SDE, "cosine"))
    ]
    for number, one in enumerate(found):
        assert all(not torch.allclose(one, other, atol=1e-3) for other in found[:number])


def test_random_labels_are_of_seed_and_number_and_of_every_class() -> None:
    science = {"labels": "random", "seed": 4}
    numbers = np.arange(2000)
    labels = sample.labels_of(science, numbers, num_classes=10)
    assert (labels.min(), labels.max()) == (0, 9)
    assert np.bincount(labels).min() > 150
    assert sample.labels_of(science, numbers[7:9], num_classes=10).equal(labels[7:9])
    assert not sample.labels_of(science | {"seed": 5}, numbers, num_classes=10).equal(labels)


def test_random_labels_are_what_the_samples_were_made_with(pipeline, new_sample) -> None:
    pipeline.milestone(320, seed=1)
    attempt = new_sample(labels="random")
    sample.run(attempt)
    stored = np.load(attempt.stage.part("sample", 320).path / "labels.npy")
    assert sorted(stored.tolist()) != sorted(index % 10 for index in range(20))
    # sample j of random labels is sample j of balanced ones where the two labels agree
    plain = new_sample()
    sample.run(plain)
    same = stored == np.arange(20) % 10
    ours, theirs = images_of(attempt, 320), images_of(plain, 320)
    assert same.any()
    np.testing.assert_allclose(ours[same].astype(int), theirs[same], atol=1)
    assert not np.array_equal(ours[~same], theirs[~same])


@pytest.mark.parametrize("sampler", [SCIENCE["sampler"], SDE], ids=["euler", "sde"])
@pytest.mark.parametrize("stop_after_chunks", [1, 2])
def test_a_stopped_attempt_keeps_its_chunks_and_ends_in_the_same_digest(
    pipeline, new_sample, monkeypatch, payload_digest, sampler, stop_after_chunks: int
) -> None:
    pipeline.milestone(320, seed=1)
    first = new_sample(sampler=sampler)
    with monkeypatch.context() as patch:
        asked = iter(range(stop_after_chunks))
        patch.setattr("jobs.runtime.stop_requested", lambda: next(asked, None) is None)
        with pytest.raises(Yielded):
            sample.run(first)
    folder = first.stage.part("sample", 320).path
    kept = {path.name: path.stat().st_ino for path in folder.glob("samples-*.npy")}
    assert len(kept) == stop_after_chunks
    second = new_sample(sampler=sampler)
    sample.run(second)
    assert {name: (folder / name).stat().st_ino for name in kept} == kept
    resumed = payload_digest(second, images=320)
    for path in folder.iterdir():
        path.unlink()
    sample.run(new_sample(sampler=sampler))
    assert payload_digest(second, images=320) == resumed


def test_a_damaged_milestone_is_named_and_nothing_is_published(pipeline, new_sample) -> None:
    pipeline.milestone(320, seed=1)
    weights = pipeline.run.stage.part("train", 320).path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    attempt = new_sample()
    with pytest.raises(DataError, match=r"weights\.safetensors"):
        sample.run(attempt)
    assert attempt.stage.parts("sample") == []
