"""The linear interpolant and its velocity."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from stx.flow.interpolant import noisy_at, velocity_target


def latents_and_noise(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, 3, 3, 4, 4, generator=generator, dtype=torch.float64))


@given(seed=st.integers(0, 2**31))
def test_t_0_is_the_latents_and_t_1_is_the_noise(seed):
    latents, noise = latents_and_noise(seed)
    assert torch.equal(noisy_at(latents, noise, torch.zeros(3)), latents)
    assert torch.equal(noisy_at(latents, noise, torch.ones(3)), noise)


@given(seed=st.integers(0, 2**31), t=st.floats(0.01, 0.99))
def test_velocity_is_the_derivative_in_t(seed, t):
    latents, noise = latents_and_noise(seed)
    times, step = torch.full((3,), t, dtype=torch.float64), 1e-3
    difference = noisy_at(latents, noise, times + step) - noisy_at(latents, noise, times - step)
    torch.testing.assert_close(difference / (2 * step), velocity_target(latents, noise))


def test_every_row_has_its_own_t():
    latents, noise = latents_and_noise(0)
    noisy = noisy_at(latents, noise, torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64))
    assert torch.equal(noisy[0], latents[0])
    assert torch.equal(noisy[2], noise[2])
    torch.testing.assert_close(noisy[1], 0.75 * latents[1] + 0.25 * noise[1])
