"""The teacher's cached features."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from stx import records
from stx.data.features import FeatureCache, draw_features
from stx.data.latents import Latents, scaled
from stx.flow.interpolant import noisy_at
from stx.times import UNIFORM, Distribution
from stx.worker import features, freeze
from stx.worker.attempt import Yielded

WINDOW = [0.4, 0.7]
SCIENCE = {
    "teacher_block": 2,
    "window": WINDOW,
    "draws": 3,
    "dtype": "fp32",
    "t_distribution": "uniform",
    "batch": 8,
    "shard": 24,
}


@pytest.fixture
def inputs(workshop, pipeline, as_source, sit_shape):
    pipeline.milestone(320, seed=1)
    frozen = workshop.attempt(
        "freeze",
        science={"weights": "raw"},
        inputs={"run": as_source(pipeline.run, images=320)},
        where={"shape": sit_shape},
    )
    freeze.run(frozen)
    return {"teacher": as_source(frozen), "latents": pipeline.latents}


@pytest.fixture
def new_features(workshop, inputs, sit_shape):
    def make(*, interpolant="linear", **science):
        where = {"shape": sit_shape, "interpolant": interpolant}
        return workshop.attempt("features", science=SCIENCE | science, inputs=inputs, where=where)

    return make


@pytest.mark.parametrize("law", [UNIFORM, Distribution("lognormal", "cosine")], ids=str)
def test_a_row_of_the_cache_is_what_the_teacher_says_of_that_draw(new_features, inputs, sit_of_seed, law) -> None:
    attempt = new_features(t_distribution=law.name, interpolant=law.interpolant)
    features.run(attempt)
    samples, draws = np.array([0, 5, 63, 17, 17]), np.array([2, 0, 1, 0, 2])
    cached = FeatureCache(attempt.stage.payload).gather(samples, draws)
    latents = Latents(inputs["latents"].path / "payload")
    drawn = draw_features(0, samples, draws, shape=(4, 8, 8), window=tuple(WINDOW), distribution=law)
    mean, std = latents.moments(samples)
    clean = scaled(mean, std, drawn.posterior_noise, scale=latents.info.scale, shift=latents.info.shift)
    t = torch.as_tensor(drawn.t)
    noisy = noisy_at(torch.as_tensor(clean), torch.as_tensor(drawn.noise), t, interpolant=law.interpolant)
    teacher, labels = sit_of_seed(1), torch.as_tensor(latents.labels[samples])
    with torch.no_grad():
        conditional = teacher(noisy, t, labels, taps=(2,), stop_block=2).hidden[2]
        unconditional = teacher(noisy, t, torch.full_like(labels, 10), taps=(2,), stop_block=2).hidden[2]
    assert ((t >= WINDOW[0]) & (t <= WINDOW[1])).all()
    torch.testing.assert_close(cached.unconditional, unconditional, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(cached.difference, conditional - unconditional, rtol=1e-4, atol=1e-5)
    assert float(cached.difference.abs().max()) > 1e-3, "labels matter to this teacher"


def test_the_record_says_what_a_consumer_must_check(new_features) -> None:
    attempt = new_features(dtype="bf16")
    features.run(attempt)
    info = FeatureCache(attempt.stage.payload).info
    assert (info.draws, tuple(info.window), info.cache_seed, info.count) == (3, (0.4, 0.7), 0, 64)
    assert (info.tokens, info.width, info.dtype, info.teacher_block) == (16, 32, "bf16", 2)


def test_two_ranks_make_the_payload_of_one(new_features, payload_digest) -> None:
    attempt = new_features()
    features.run(attempt)
    alone = payload_digest(attempt)
    for path in (attempt.stage.result.artifact, *attempt.stage.payload.iterdir()):
        path.unlink()
    shared = new_features()
    features.run(replace(shared, rank=1, world_size=2))
    assert [path.name for path in shared.stage.payload.iterdir()] == ["features-00001.tar"]
    features.run(replace(shared, rank=0, world_size=2))
    assert payload_digest(shared) == alone


@pytest.mark.parametrize("stop_after_chunks", [0, 9, 10, 20])
def test_a_stopped_attempt_keeps_whole_shards_and_ends_in_the_same_digest(
    new_features, stop, monkeypatch, payload_digest, stop_after_chunks: int
) -> None:
    with monkeypatch.context() as patch:
        asked = iter(range(stop_after_chunks))
        patch.setattr("jobs.runtime.stop_requested", lambda: next(asked, None) is None)
        first = new_features()
        with pytest.raises(Yielded):
            features.run(first)
    kept = {path.name: path.stat().st_ino for path in first.stage.payload.glob("*.tar")}
    assert len(kept) == stop_after_chunks // 9, "a shard is 24 samples x 3 draws = 9 chunks of 8"
    second = new_features()
    features.run(second)
    payload = second.stage.payload
    assert {name: (payload / name).stat().st_ino for name in kept} == kept
    resumed = payload_digest(second)
    for path in (second.stage.result.artifact, *payload.iterdir()):
        path.unlink()
    features.run(new_features())
    assert payload_digest(second) == resumed
    assert records.read(second.stage.result.artifact)["info"]["rows_made"] == 64 * 3
