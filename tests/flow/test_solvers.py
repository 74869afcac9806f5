"""Solvers against a flow that is known in closed form.

For latents ~ N(0, s^2) and noise ~ N(0, 1) the interpolant is N(0, sigma(t)^2), sigma(t)^2 = (1-t)^2 s^2 + t^2, the
velocity is x (t - (1-t) s^2) / sigma(t)^2, and the ODE carries x at t=1 to s x at t=0.
"""

import math

import pytest
import torch

from stx.flow.solvers import SOLVERS, euler

SPREAD = 0.4


def gaussian_velocity(noisy: torch.Tensor, t: float) -> torch.Tensor:
    return noisy * (t - (1 - t) * SPREAD**2) / ((1 - t) ** 2 * SPREAD**2 + t**2)


def error(solver: str, *, steps: int) -> float:
    noise = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    return abs(SOLVERS[solver](gaussian_velocity, noise, steps=steps).item() - SPREAD)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1)])
def test_error_falls_with_the_order_of_the_solver(solver, order):
    observed = math.log2(error(solver, steps=400) / error(solver, steps=800))
    assert observed == pytest.approx(order, abs=0.05)


def test_euler_asks_for_n_velocities_from_t_1_down_to_1_over_n():
    seen = []
    euler(lambda noisy, t: seen.append(t) or torch.zeros_like(noisy), torch.zeros(1, 1, 2, 2), steps=4)
    assert seen == [1.0, 0.75, 0.5, 0.25]


def test_euler_is_exact_on_a_straight_path():
    latents, noise = torch.randn(2, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    reached = euler(lambda noisy, t: noise - latents, noise, steps=7)
    torch.testing.assert_close(reached, latents)


def test_velocity_is_asked_in_the_dtype_of_the_noise():
    seen = set()
    result = euler(lambda noisy, t: seen.add(noisy.dtype) or noisy, torch.ones(1, 1, 2, 2), steps=2)
    assert seen == {torch.float32}
    assert result.dtype == torch.float32
