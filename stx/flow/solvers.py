"""Solvers of the probability-flow ODE dx/dt = v(x, t), from noise at t=1 to latents at t=0. One function each.

A solver takes `velocity_at(x, t)`, a function of a tensor and a float. The state is float64, so that the error of a
sampler is the solver's and not the rounding of its sums; the velocity is asked in the dtype of the noise.
"""

import itertools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

VelocityAt = Callable[[Tensor, float], Tensor]


@torch.no_grad()
def euler(velocity_at: VelocityAt, noise: Tensor, *, steps: int) -> Tensor:
    """Euler over linspace(1, 0, steps + 1), order 1: noise (B, C, H, W) -> latents (B, C, H, W)."""
    state = noise.double()
    grid = [1 - step / steps for step in range(steps + 1)]
    for t, t_next in itertools.pairwise(grid):
        state = state + (t_next - t) * velocity_at(state.to(noise.dtype), t)
    return state.to(noise.dtype)


SOLVERS: Mapping[str, Callable[..., Tensor]] = {"euler": euler}
