"""A smoke test that the whole method learns on a CPU. It shows that the parts fit, and reproduces no published number.

Latents are a pattern of their class under noise of the same size. Phase 1, its teacher, and phase 2 take 300 steps
each; then a linear probe (ridge, closed form) reads the class of unlabelled noisy latents from the student's mean
hidden state.
"""

import pytest
import torch
from torch.nn.functional import one_hot

from stx.data.loader import Batch
from stx.flow.interpolant import noisy_at, velocity_target
from stx.flow.objective import diffusion_loss

PATTERNS = torch.randn(10, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def class_batch(seed: int, *, rows: int = 32) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 10, (rows,), generator=generator)
    spread, noise = torch.randn(2, rows, 4, 8, 8, generator=generator)
    t, coin = torch.rand(2, rows, generator=generator)
    in_window = (t >= 0.4) & (t <= 0.7)
    return Batch(
        first=0,
        samples=torch.arange(rows),
        latents=PATTERNS[labels] + spread,
        noise=noise,
        t=t,
        labels=labels,
        dropped_labels=torch.where(coin < 0.1, 10, labels),
        in_window=in_window,
        window_rows=int(in_window.sum()),
        global_batch=rows,
        features=None,
    )


def train(model, method, *, steps: int = 300) -> list[float]:
    """Plain AdamW; the alignment's term at each step."""
    optimizer = torch.optim.AdamW([*model.parameters(), *method.parameters()], lr=3e-3, weight_decay=0)
    aligned = []
    for step in range(steps):
        batch = class_batch(step)
        noisy = noisy_at(batch.latents, batch.noise, batch.t, interpolant="linear")
        output = model(noisy, batch.t, batch.dropped_labels, taps=method.taps)
        diffusion = diffusion_loss(
            output.velocity, velocity_target(batch.latents, batch.noise, batch.t, interpolant="linear")
        ).mean()
        terms = method(batch, output.hidden).terms
        optimizer.zero_grad()
        sum(terms.values(), diffusion).backward()
        optimizer.step()
        aligned += [term.item() for term in terms.values()]
    return aligned


@torch.no_grad()
def state_and_label(model, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean hidden state after block 2 of 2,000 noisy latents whose label the model is not told."""
    batch = class_batch(seed, rows=2000)
    t, null = torch.full((2000,), 0.55), torch.full((2000,), 10)
    hidden = model(noisy_at(batch.latents, batch.noise, t, interpolant="linear"), t, null, taps=(2,)).hidden[2]
    return hidden.mean(1).double(), batch.labels


def probe_accuracy(model) -> float:
    states, labels = state_and_label(model, 10_000)
    others, other_labels = state_and_label(model, 10_001)
    mean, scale = states.mean(0), states.std(0)
    states, others = (torch.cat([(x - mean) / scale, torch.ones(2000, 1)], 1) for x in (states, others))
    ridge = states.T @ states + 0.1 * torch.eye(33, dtype=torch.float64)
    weights = torch.linalg.solve(ridge, states.T @ one_hot(labels, 10).double())
    return ((others @ weights).argmax(1) == other_labels).double().mean().item()


@pytest.mark.slow
def test_phase_2_lowers_its_loss_and_its_states_tell_classes_better_than_vanilla_ones(sit, alignment):
    vanilla, teacher, student = sit(0), sit(100), sit(0)
    train(vanilla, alignment("none"))
    head = train(teacher, alignment("velocity_head", head_block=1, projector_width=64))
    aligned = train(student, alignment("guided_teacher", teacher=teacher, projector_width=64))
    assert sum(head[-20:]) / 20 < 0.7 * head[0]
    assert sum(aligned[-20:]) / 20 < 0.7 * aligned[0]
    assert probe_accuracy(student) > probe_accuracy(vanilla) + 0.01
