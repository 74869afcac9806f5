"""Solvers from noise at t=1 to latents at t=0, one function each: of the probability-flow ODE dx/dt = v(x, t), and of
the reverse SDE with the same marginals (SiT, arXiv 2401.08740). Their grids are stx.times.grid.

A solver takes `velocity_at(x, t)`, a function of a tensor and a float. The state is float64, so that the error of a
sampler is the solver's and not the rounding of its sums; the velocity is asked in the dtype of the noise.
"""

import itertools
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from stx.flow.interpolant import score
from stx.times import grid

VelocityAt = Callable[[Tensor, float], Tensor]


@torch.no_grad()
def euler(velocity_at: VelocityAt, noise: Tensor, *, steps: int) -> Tensor:
    """Euler over linspace(1, 0, steps + 1), order 1, `steps` velocities: noise (B, C, H, W) -> latents (B, C, H, W)."""
    state = noise.double()
    for t, t_next in itertools.pairwise(grid("euler", steps=steps)):
        state = state + (t_next - t) * velocity_at(state.to(noise.dtype), t)
    return state.to(noise.dtype)


@torch.no_grad()
def heun(velocity_at: VelocityAt, noise: Tensor, *, steps: int) -> Tensor:
    """Heun over the same grid, order 2, 2 steps - 1 velocities: the last step, to t=0 where nothing was trained, is
    Euler's, whose error of one step is as small as the others' sum.
    """
    state = noise.double()
    for t, t_next in itertools.pairwise(grid("heun", steps=steps)):
        slope = velocity_at(state.to(noise.dtype), t).double()
        if t_next > 0:
            ahead = state + (t_next - t) * slope
            slope = (slope + velocity_at(ahead.to(noise.dtype), t_next)) / 2
        state = state + (t_next - t) * slope
    return state.to(noise.dtype)


@torch.no_grad()
def sde(
    velocity_at: VelocityAt,
    noise: Tensor,
    *,
    steps: int,
    last_step: float,
    interpolant: str,
    noise_of: Callable[[int], Tensor],
) -> Tensor:
    """Euler-Maruyama over linspace(1, last_step, steps), then to 0 without noise; `steps` velocities:

        dx = (v - t score) dt + sqrt(2t) dw

    as REPA and Self-Transcendence sample, with 250 steps and a last one of 0.04. `noise_of(step)` (B, C, H, W) are the
    standard normals of the step, 0 .. steps - 2. Guidance acts on v: the drift is affine in it.
    """
    state = noise.double()
    places = grid("sde", steps=steps, last_step=last_step)
    for step, (t, t_next) in enumerate(itertools.pairwise(places)):
        velocity, width = velocity_at(state.to(noise.dtype), t).double(), t - t_next
        times = torch.full((len(state),), t, dtype=torch.float64, device=state.device)
        drift = velocity - t * score(velocity, state, times, interpolant=interpolant)
        state = state - width * drift
        if t_next > 0:
            state = state + math.sqrt(2 * t * width) * noise_of(step).double()
    return state.to(noise.dtype)


ODE_SOLVERS: Mapping[str, Callable[..., Tensor]] = {"euler": euler, "heun": heun}
