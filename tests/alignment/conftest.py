"""Tiny real things for the tests of alignments: models of 4 blocks on 4x8x8 latents of 10 classes."""

from collections.abc import Callable

import pytest
import torch

from stx.data.loader import Batch
from stx.flow.interpolant import noisy_at
from stx.model.blocks import initialised
from stx.model.sit import SiT
from stx.named import load
from stx.sizes import SitShape

SHAPE = SitShape(depth=4, width=32, heads=2, patch=2)
NETWORK = {"in_channels": 4, "input_size": 8, "num_classes": 10}
WINDOW = (0.4, 0.7)
OPTIONS = {
    "velocity_head": {"head_block": 2},
    "guided_teacher": {"student_block": 2, "teacher_block": 3, "guidance": 5.0},
    "none": {},
}
COMMON = {"weight": 0.5, "projector_width": 16, "window_reduction": "in_window"}


def make_sit(seed: int = 0) -> SiT:
    return initialised(lambda: SiT(SHAPE, **NETWORK), seed=seed)


def make_awake(seed: int = 0) -> SiT:
    """A model as after some training: nothing is zero any more, so labels and blocks matter."""
    model = make_sit(seed)
    generator = torch.Generator().manual_seed(seed + 1000)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def make_alignment(method: str, *, seed: int = 7, teacher=None, feature_width=None, interpolant="linear", **changes):
    options = COMMON | OPTIONS[method] | changes
    if method == "guided_teacher" and feature_width is None and teacher is None:
        teacher = make_awake(99)

    def build():
        return load("stx.alignment", method).build(
            options, shape=SHAPE, **NETWORK, interpolant=interpolant, teacher=teacher, feature_width=feature_width
        )

    return initialised(build, seed=seed)


def make_batch(t=(0.05, 0.45, 0.2, 0.6, 0.9, 0.69, 0.3, 0.75), *, seed: int = 0) -> Batch:
    rows = len(t)
    generator = torch.Generator().manual_seed(seed)
    latents, noise = torch.randn(2, rows, 4, 8, 8, generator=generator)
    times, labels = torch.tensor(t), torch.arange(rows) % 10
    in_window = (times >= WINDOW[0]) & (times <= WINDOW[1])
    return Batch(
        first=0,
        samples=torch.arange(rows),
        latents=latents,
        noise=noise,
        t=times,
        labels=labels,
        dropped_labels=torch.where(torch.arange(rows) % 3 == 1, 10, labels),
        in_window=in_window,
        window_rows=int(in_window.sum()),
        global_batch=rows,
        features=None,
    )


def make_hidden(model: SiT, batch: Batch, taps: tuple[int, ...]) -> dict[int, torch.Tensor]:
    """The student's hidden states on a batch."""
    return model(
        noisy_at(batch.latents, batch.noise, batch.t, interpolant="linear"), batch.t, batch.dropped_labels, taps=taps
    ).hidden


@pytest.fixture
def sit() -> Callable[..., SiT]:
    return make_sit


@pytest.fixture
def awake() -> Callable[..., SiT]:
    return make_awake


@pytest.fixture
def alignment() -> Callable[..., torch.nn.Module]:
    return make_alignment


@pytest.fixture
def batch() -> Callable[..., Batch]:
    return make_batch


@pytest.fixture
def hidden() -> Callable[..., dict[int, torch.Tensor]]:
    return make_hidden
