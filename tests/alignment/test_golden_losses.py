"""Numerics frozen by gold: the losses of 20 steps of each method on one thread, in tests/golden/losses-METHOD.txt.

A tiny SiT (depth 2, width 32) is trained by plain AdamW on latents of 10 classes made by data/noise.py; the teacher
of guided_teacher is the SiT that velocity_head leaves behind. Where the header of a file is that of this machine,
every bit must be the same; elsewhere 1e-5. A refactor may not move a bit; a change of recipe writes the files anew,
in the commit that bumps the recipe:

    STX_WRITE_GOLDEN=1 pytest tests/alignment/test_golden_losses.py
"""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy
import pytest
import timm
import torch

from stx.data import noise
from stx.data.loader import Batch
from stx.data.noise import Purpose, init_seed
from stx.flow.interpolant import noisy_at, velocity_target
from stx.flow.objective import diffusion_loss
from stx.model.blocks import initialised
from stx.model.sit import SiT
from stx.named import load
from stx.sizes import SitShape

GOLDEN = Path(__file__).parents[1] / "golden"
STEPS, ROWS, SEED = 20, 16, 0
SHAPE = SitShape(depth=2, width=32, heads=2, patch=2)
NETWORK = {"in_channels": 4, "input_size": 8, "num_classes": 10}
COMMON = {"weight": 0.5, "projector_width": 32, "window_reduction": "in_window"}
METHODS = {
    "none": {},
    "velocity_head": COMMON | {"head_block": 1},
    "guided_teacher": COMMON | {"student_block": 1, "teacher_block": 2, "guidance": 5.0},
}


def header() -> str:
    """What bits may depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    instructions = torch.backends.cpu.get_cpu_capability()
    versions = f"torch {torch.__version__}, timm {timm.__version__}, numpy {numpy.__version__}"
    return f"# {torch.get_num_threads()} thread, {instructions}, {processor}; {versions}"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def golden_batch(step: int) -> Batch:
    """Rows n = 16 step ..: a pattern of the class plus noise; t, label dropout and noise all follow from n."""
    rows = numpy.arange(step * ROWS, (step + 1) * ROWS)
    patterns = noise.normals(SEED, Purpose.AUTOENCODER_NOISE, numpy.arange(10), count=256)
    spread, eps = numpy.split(noise.normals(SEED, Purpose.TRAIN_NOISE, rows, count=512), 2, axis=1)
    coins = torch.from_numpy(noise.uniforms(SEED, Purpose.TRAIN_COINS, rows, count=2))
    labels, t = torch.from_numpy(rows * 7 % 10), coins[:, 0]
    in_window = (t >= 0.4) & (t <= 0.7)
    return Batch(
        first=int(rows[0]),
        samples=torch.from_numpy(rows),
        latents=torch.from_numpy(patterns[labels] + 0.3 * spread).reshape(ROWS, 4, 8, 8),
        noise=torch.from_numpy(eps).reshape(ROWS, 4, 8, 8),
        t=t,
        labels=labels,
        dropped_labels=torch.where(coins[:, 1] < 0.1, 10, labels),
        in_window=in_window,
        window_rows=int(in_window.sum()),
        global_batch=ROWS,
        features=None,
    )


def train(method: str, *, teacher: SiT | None) -> tuple[SiT, list[float]]:
    """20 steps; the model and the losses."""
    model = initialised(lambda: SiT(SHAPE, **NETWORK), seed=init_seed(SEED, Purpose.TRAIN_INIT))
    build = load("stx.alignment", method).build
    alignment = initialised(
        lambda: build(METHODS[method], shape=SHAPE, **NETWORK, interpolant="linear", teacher=teacher),
        seed=init_seed(SEED, Purpose.ALIGNMENT_INIT),
    )
    optimizer = torch.optim.AdamW([*model.parameters(), *alignment.parameters()], lr=1e-2)
    losses = []
    for step in range(STEPS):
        batch = golden_batch(step)
        noisy = noisy_at(batch.latents, batch.noise, batch.t, interpolant="linear")
        output = model(noisy, batch.t, batch.dropped_labels, taps=alignment.taps)
        diffusion = (
            diffusion_loss(
                output.velocity, velocity_target(batch.latents, batch.noise, batch.t, interpolant="linear")
            ).sum()
            / ROWS
        )
        loss = sum(alignment(batch, output.hidden).terms.values(), diffusion)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, losses


@cache
def phase_1() -> tuple[SiT, list[float]]:
    return train("velocity_head", teacher=None)


def losses_of(method: str) -> list[float]:
    if method == "velocity_head":
        return phase_1()[1]
    teacher = phase_1()[0] if method == "guided_teacher" else None
    return train(method, teacher=teacher)[1]


@pytest.mark.parametrize("method", METHODS)
def test_losses_of_20_steps_are_the_golden_ones(method):
    path, losses = GOLDEN / f"losses-{method}.txt", losses_of(method)
    if os.environ.get("STX_WRITE_GOLDEN"):
        path.write_text("\n".join([header(), *(f"{loss:.9g}" for loss in losses)]) + "\n")
    first, *lines = path.read_text().splitlines()
    golden = [float(line) for line in lines]
    if first == header():
        assert [float(f"{loss:.9g}") for loss in losses] == golden
    else:
        assert losses == pytest.approx(golden, rel=1e-5)


def test_every_method_learns_and_each_in_its_own_way():
    vanilla, head, guided = (losses_of(method) for method in METHODS)
    assert vanilla[-1] < vanilla[0]
    assert head[-1] < head[0]
    assert guided[-1] < guided[0]
    assert len({tuple(losses) for losses in (vanilla, head, guided)}) == 3
