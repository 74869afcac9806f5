"""The diffusion loss."""

import pytest
import torch

from stx.flow.interpolant import velocity_target
from stx.flow.objective import diffusion_loss


def test_loss_is_the_mean_square_of_each_sample():
    velocity = torch.zeros(2, 1, 2, 2)
    target = torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 2, 2) * torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1)
    assert diffusion_loss(velocity, target).tolist() == [7.5, 30.0]


def test_the_true_velocity_has_no_loss():
    latents, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    target = velocity_target(latents, noise, torch.rand(3), interpolant="linear")
    assert diffusion_loss(target, target).tolist() == [0, 0, 0]


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(AssertionError, match="against"):
        diffusion_loss(torch.ones(3, 1, 2, 2), torch.zeros(1, 1, 2, 2))


def test_loss_is_fp32_whatever_the_model_returns():
    velocity = torch.ones(2, 1, 2, 2, dtype=torch.bfloat16)
    assert diffusion_loss(velocity, torch.zeros(2, 1, 2, 2)).dtype == torch.float32
