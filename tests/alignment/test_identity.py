"""A method that counts for nothing changes nothing: no initial weight, no loss, no parameter, bit by bit."""

from dataclasses import replace

import pytest
import torch

from stx.flow.interpolant import noisy_at, velocity_target
from stx.flow.objective import diffusion_loss


def train(model, method, batches) -> list[float]:
    """Steps of AdamW on all batches; the losses."""
    optimizer = torch.optim.AdamW([*model.parameters(), *method.parameters()], lr=1e-2)
    losses = []
    for batch in batches:
        noisy = noisy_at(batch.latents, batch.noise, batch.t, interpolant="linear")
        output = model(noisy, batch.t, batch.dropped_labels, taps=method.taps)
        diffusion = diffusion_loss(
            output.velocity, velocity_target(batch.latents, batch.noise, batch.t, interpolant="linear")
        ).sum()
        loss = sum(method(batch, output.hidden).terms.values(), diffusion / batch.global_batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        method.after_step(len(losses))
    return losses


@pytest.mark.parametrize("method", ["velocity_head", "guided_teacher"])
@pytest.mark.parametrize("case", ["weight 0", "past the stop step"])
def test_losses_and_weights_are_those_of_a_vanilla_run(method, case, sit, alignment, batch):
    batches = [batch(seed=seed) for seed in range(4)]
    vanilla, other = sit(3), sit(3)
    expected = train(vanilla, alignment("none"), batches)
    if case == "weight 0":
        attached = alignment(method, weight=0.0)
    else:
        attached = alignment(method)
        batches = [replace(one, in_window=torch.zeros(8, dtype=torch.bool), window_rows=0) for one in batches]
    assert train(other, attached, batches) == expected
    assert all(torch.equal(a, b) for a, b in zip(vanilla.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("method", ["none", "velocity_head", "guided_teacher"])
def test_a_method_draws_nothing_from_the_global_generator(method, sit, alignment, batch):
    before = torch.get_rng_state()
    train(sit(3), alignment(method), [batch()])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_method_that_counts_changes_the_weights(sit, alignment, batch):
    plain, aligned = sit(3), sit(3)
    train(plain, alignment("none"), [batch(seed=seed) for seed in range(3)])
    train(aligned, alignment("guided_teacher"), [batch(seed=seed) for seed in range(3)])
    assert not torch.equal(plain.blocks[0].mlp.fc1.weight, aligned.blocks[0].mlp.fc1.weight)
