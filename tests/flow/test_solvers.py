"""Solvers against flows that are known in closed form.

For latents ~ N(m, s^2) and noise ~ N(0, 1) the interpolant a x0 + b eps is N(a m, a^2 s^2 + b^2), and the velocity is
the mean of a' x0 + b' eps given x. The ODE carries x at t=1 to m + s x at t=0.
"""

import math

import pytest
import torch

from stx.flow.guidance import guided_velocity
from stx.flow.interpolant import coefficients
from stx.flow.solvers import ODE_SOLVERS, euler, heun, sde
from stx.stages.sample import Sampler, passes
from stx.times import INTERPOLANTS, call_times

MEAN, SPREAD = 0.7, 0.4
ORDERS = {"euler": 1, "heun": 2}
on_each = pytest.mark.parametrize("interpolant", INTERPOLANTS)


def gaussian(interpolant: str):
    def velocity_at(noisy: torch.Tensor, t: float) -> torch.Tensor:
        a, b, a_slope, b_slope = coefficients(torch.tensor(t, dtype=torch.float64), interpolant=interpolant)
        away = (noisy - a * MEAN) / (a**2 * SPREAD**2 + b**2)
        return (a_slope * (MEAN + a * SPREAD**2 * away) + b_slope * b * away).to(noisy.dtype)

    return velocity_at


def error(solver: str, *, steps: int, interpolant: str) -> float:
    noise = torch.full((1, 1, 1, 1), 1.5, dtype=torch.float64)
    return abs(ODE_SOLVERS[solver](gaussian(interpolant), noise, steps=steps).item() - (MEAN + 1.5 * SPREAD))


@on_each
@pytest.mark.parametrize("solver", ORDERS)
def test_error_falls_with_the_order_of_the_solver(solver, interpolant):
    coarse, fine = (error(solver, steps=steps, interpolant=interpolant) for steps in (200, 400))
    assert math.log2(coarse / fine) == pytest.approx(ORDERS[solver], abs=0.06)
    assert fine < 0.003 / 100 ** (ORDERS[solver] - 1)


@on_each
def test_the_sde_has_the_mean_and_the_variance_of_the_latents(interpolant):
    generator = torch.Generator().manual_seed(0)
    rows, steps = 40_000, 300
    start = torch.randn(rows, 1, 1, 1, generator=generator)
    found = sde(
        gaussian(interpolant),
        start,
        steps=steps,
        last_step=0.002,
        interpolant=interpolant,
        noise_of=lambda step: torch.randn(rows, 1, 1, 1, generator=generator),
    ).flatten()
    # four standard errors, and the first-order error of 300 steps
    assert found.mean().item() == pytest.approx(MEAN, abs=4 * SPREAD / math.sqrt(rows) + 0.003)
    assert found.var().item() == pytest.approx(SPREAD**2, rel=4 * math.sqrt(2 / rows) + 0.02)
    # no map of the start, as the ODE is: its correlation would be 1
    assert torch.corrcoef(torch.stack([start.flatten(), found]))[0, 1].item() < 0.6


def test_the_last_step_of_the_sde_is_the_one_asked_for_and_adds_no_noise():
    seen, steps = [], []
    result = sde(
        lambda noisy, t: seen.append(t) or torch.zeros_like(noisy),
        torch.zeros(1, 1, 2, 2),
        steps=4,
        last_step=0.1,
        interpolant="linear",
        noise_of=lambda step: steps.append(step) or torch.zeros(1, 1, 2, 2),
    )
    assert seen == pytest.approx([1.0, 0.7, 0.4, 0.1])
    assert steps == [0, 1, 2]
    assert result.abs().max() == 0


def test_one_step_of_the_sde_is_what_the_equation_says():
    noise, xi, velocity = torch.randn(3, 2, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = sde(
        lambda noisy, t: velocity, noise, steps=2, last_step=0.25, interpolant="linear", noise_of=lambda step: xi
    )
    # from 1 to 1/4: the score at t = 1 is -noise, g^2 = 2; from 1/4 to 0 without noise
    state = noise - 0.75 * (velocity + noise) + math.sqrt(2 * 0.75) * xi
    score = -(state + 0.75 * velocity) / 0.25
    torch.testing.assert_close(found, state - 0.25 * (velocity - 0.25 * score))


@pytest.mark.parametrize("solver", ORDERS)
def test_a_solver_is_exact_on_a_straight_path(solver):
    latents, noise = torch.randn(2, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ODE_SOLVERS[solver](lambda noisy, t: noise - latents, noise, steps=7), latents)


def test_heun_corrects_with_the_velocity_at_the_end_of_the_step():
    # dx/dt = t, from x(1) = 0: the trapezoid is exact but for the last step, Euler's over [1/4, 0]
    found = heun(lambda noisy, t: torch.full_like(noisy, t), torch.zeros(1, 1, 1, 1), steps=4)
    assert found.item() == pytest.approx(-(1 - 1 / 16) / 2 - 1 / 16)


def test_the_state_is_float64_and_the_velocity_is_asked_in_the_dtype_of_the_noise():
    seen = set()
    result = euler(lambda noisy, t: seen.add(noisy.dtype) or noisy, torch.ones(1, 1, 2, 2), steps=2)
    assert seen == {torch.float32}
    assert result.dtype == torch.float32
    # a thousand steps of 1e-3 times 1e-5 would be lost one by one on 1000 in float32
    drifted = euler(lambda noisy, t: torch.full_like(noisy, -1e-2), torch.full((1, 1, 1, 1), 1000.0), steps=1000)
    assert drifted.item() == pytest.approx(1000.01, abs=1e-4)


@pytest.mark.parametrize("solver", ["euler", "heun", "sde"])
@pytest.mark.parametrize(("guidance", "interval"), [(1.0, (0.0, 1.0)), (3.0, (0.0, 1.0)), (3.0, (0.0, 0.65))])
def test_the_network_sees_as_many_rows_as_the_plan_bills_and_none_twice(solver, guidance, interval):
    calls = []

    def velocity(noisy: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        calls.append((t[0].item(), len(noisy)))
        return noisy

    labels, start = torch.tensor([1, 3]), torch.ones(2, 1, 1, 1)
    at = guided_velocity(velocity, labels, null_label=7, guidance=guidance, interval=interval)
    if solver == "sde":
        sde(at, start, steps=10, last_step=0.04, interpolant="linear", noise_of=lambda step: start)
    else:
        ODE_SOLVERS[solver](at, start, steps=10)
    assert [t for t, _ in calls] == pytest.approx(call_times(solver, steps=10))
    assert all(rows == (4 if guidance != 1 and t <= interval[1] else 2) for t, rows in calls)
    sampler = Sampler(solver=solver, steps=10, guidance=guidance, interval=interval)
    assert sum(rows for _, rows in calls) == 2 * passes(sampler)
