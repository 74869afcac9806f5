"""Interpolants, their velocity and their score."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stx.flow.interpolant import noisy_at, score, velocity_target
from stx.times import INTERPOLANTS

interpolants = pytest.mark.parametrize("interpolant", INTERPOLANTS)


def latents_and_noise(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, 3, 3, 4, 4, generator=generator, dtype=torch.float64))


def every_row(t: float) -> torch.Tensor:
    return torch.full((3,), t, dtype=torch.float64)


@interpolants
@given(seed=st.integers(0, 2**31))
def test_t_0_is_the_latents_and_t_1_is_the_noise(interpolant, seed):
    latents, noise = latents_and_noise(seed)
    torch.testing.assert_close(noisy_at(latents, noise, every_row(0.0), interpolant=interpolant), latents)
    torch.testing.assert_close(noisy_at(latents, noise, every_row(1.0), interpolant=interpolant), noise)


@interpolants
@given(seed=st.integers(0, 2**31), t=st.floats(0.01, 0.99))
def test_velocity_is_the_derivative_in_t(interpolant, seed, t):
    latents, noise = latents_and_noise(seed)
    later, earlier = (noisy_at(latents, noise, every_row(t + step), interpolant=interpolant) for step in (1e-4, -1e-4))
    expected = velocity_target(latents, noise, every_row(t), interpolant=interpolant)
    torch.testing.assert_close((later - earlier) / 2e-4, expected, rtol=1e-6, atol=1e-6)


@interpolants
@given(seed=st.integers(0, 2**31), t=st.floats(0.01, 1.0))
def test_the_true_velocity_has_the_score_minus_noise_over_its_share(interpolant, seed, t):
    latents, noise = latents_and_noise(seed)
    times = every_row(t)
    noisy = noisy_at(latents, noise, times, interpolant=interpolant)
    velocity = velocity_target(latents, noise, times, interpolant=interpolant)
    share = t if interpolant == "linear" else math.sin(math.pi / 2 * t)
    torch.testing.assert_close(
        score(velocity, noisy, times, interpolant=interpolant), -noise / share, rtol=1e-9, atol=1e-9
    )


def test_on_powers_of_two_the_linear_score_is_exact():
    latents, noise = torch.tensor([3.0, -1.0, 0.5]).view(3, 1, 1, 1), torch.tensor([1.0, 2.0, -4.0]).view(3, 1, 1, 1)
    t = torch.tensor([0.25, 0.5, 1.0])
    velocity, noisy = noise - latents, noisy_at(latents, noise, t, interpolant="linear")
    assert score(velocity, noisy, t, interpolant="linear").equal(-noise / t.view(3, 1, 1, 1))


def test_the_linear_velocity_is_noise_minus_latents_bit_by_bit():
    latents, noise = (part.float() for part in latents_and_noise(5))
    assert velocity_target(latents, noise, torch.rand(3), interpolant="linear").equal(noise - latents)


def test_the_cosine_interpolant_keeps_the_variance():
    latents, noise = latents_and_noise(7)
    at = noisy_at(torch.ones_like(latents), torch.zeros_like(noise), every_row(0.3), interpolant="cosine")
    other = noisy_at(torch.zeros_like(latents), torch.ones_like(noise), every_row(0.3), interpolant="cosine")
    torch.testing.assert_close(at**2 + other**2, torch.ones_like(at))


@interpolants
def test_every_row_has_its_own_t(interpolant):
    latents, noise = latents_and_noise(0)
    t = torch.tensor([0.1, 0.25, 0.9], dtype=torch.float64)
    together = noisy_at(latents, noise, t, interpolant=interpolant)
    for row in range(3):
        one = slice(row, row + 1)
        assert together[one].equal(noisy_at(latents[one], noise[one], t[one], interpolant=interpolant))
