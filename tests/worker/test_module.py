"""The module and the loader of a train stage: which interpolant the losses are of, and how t is drawn."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from stx.data.loader import Batch
from stx.data.times import stratified, times_of
from stx.flow.interpolant import noisy_at, velocity_target
from stx.model.sit import SiT
from stx.sizes import SitShape
from stx.times import Distribution
from stx.worker import module, train
from stx.worker.ranks import ALONE

ENDS = module.Inputs(in_channels=4, input_size=8, num_classes=10)
SHAPE = {"depth": 2, "width": 32, "heads": 2, "patch": 2}
COMMON = {"weight": 0.5, "projector_width": 16, "window_reduction": "in_window"}
METHODS = {
    "none": {},
    "velocity_head": COMMON | {"head_block": 1},
    "guided_teacher": COMMON | {"student_block": 1, "teacher_block": 2, "guidance": 3.0},
}


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 4, 4, 8, 8, generator=generator)
    return Batch(
        first=0,
        samples=torch.arange(4),
        latents=latents,
        noise=noise,
        t=torch.tensor([0.1, 0.45, 0.65, 0.9]),
        labels=torch.arange(4),
        dropped_labels=torch.arange(4),
        in_window=torch.tensor([False, True, True, False]),
        window_rows=2,
        global_batch=4,
        features=None,
    )


def linear_twin(batch: Batch) -> Batch:
    """Latents and noise whose linear interpolant and velocity are the batch's cosine ones."""
    noisy, velocity = (
        make(batch.latents, batch.noise, batch.t, interpolant="cosine") for make in (noisy_at, velocity_target)
    )
    t = batch.t.view(-1, 1, 1, 1)
    return replace(batch, latents=noisy - t * velocity, noise=noisy + (1 - t) * velocity)


@pytest.mark.parametrize("method", METHODS)
def test_every_loss_of_a_cosine_run_is_of_the_cosine_interpolant(method, batch, sit_of_seed):
    def scalars(rows: Batch, **science) -> dict[str, float]:
        teacher: SiT | None = sit_of_seed(3) if method == "guided_teacher" else None
        options = {"method": method, **METHODS[method]}
        science = {"model": SHAPE, "alignment": options, "qk_norm": False, "seed": 1, **science}
        built = module.build(science, inputs=ENDS, teacher=teacher, feature_width=None)
        built.model.load_state_dict(sit_of_seed(1).state_dict())
        assert built.model.shape == SitShape(**SHAPE)
        return {name: value.item() for name, value in built(rows).scalars.items()}

    cosine, linear = scalars(batch, interpolant="cosine"), scalars(batch)
    assert cosine == pytest.approx(scalars(linear_twin(batch)), rel=1e-4)
    for name in ("diffusion", *(f"alignment.{method}",) * (method != "none")):
        assert cosine[name] != pytest.approx(linear[name], rel=1e-2), name


TRAIN = {
    "model": SHAPE,
    "global_batch": 16,
    "label_dropout": 0.1,
    "qk_norm": False,
    "order_window": 16,
    "t_distribution": "uniform",
    "alignment": {"method": "none"},
}


def test_the_loader_draws_t_as_the_run_says(workshop, pipeline) -> None:
    def times(**science) -> np.ndarray:
        layout = {"ranks": 1, "micro_batch": 16, "noise_on": "loader", "activation_checkpointing": False}
        attempt = workshop.attempt(
            "train", science=TRAIN | science, inputs={"latents": pipeline.latents}, layout=layout
        )
        loader, built = train._build(attempt, ALONE)
        assert built.interpolant == science.get("interpolant", "linear")
        return loader.step(32)[0].t.numpy()

    plain = times()
    assert np.array_equal(times(interpolant="cosine"), plain)
    for interpolant in ("linear", "cosine"):
        law = Distribution("lognormal", interpolant)
        found = times(t_distribution="lognormal", interpolant=interpolant)
        assert np.array_equal(found, times_of(plain, distribution=law))
    expected = stratified(plain, np.arange(32, 48), seed=0, batch=16)
    assert np.array_equal(times(stratified_t=True), expected)
    assert not np.array_equal(expected, plain)
