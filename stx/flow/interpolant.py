"""Interpolants between latents and noise, and their velocity and score (SiT, arXiv 2401.08740).

    noisy = a(t) latents + s(t) noise          velocity = a'(t) latents + s'(t) noise
    linear   a = 1 - t          s = t
    cosine   a = cos(pi t / 2)  s = sin(pi t / 2)

t=1 is noise (REPA, Self-Transcendence). The SiT paper's own code counts the other way: t = 1 - t of SiT. Two equations
for two unknowns: a velocity at a place also says which noise it means, and with it the score, -noise / s(t).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Coefficients(NamedTuple):
    """a, s and their derivatives in t, of t's shape."""

    a: Tensor
    s: Tensor
    a_slope: Tensor
    s_slope: Tensor


def coefficients(t: Tensor, *, interpolant: str) -> Coefficients:
    """At each t."""
    if interpolant == "linear":
        one = torch.ones_like(t)
        return Coefficients(1 - t, t, -one, one)
    assert interpolant == "cosine", interpolant
    quarter = math.pi / 2
    a, s = torch.cos(quarter * t), torch.sin(quarter * t)
    return Coefficients(a, s, -quarter * s, quarter * a)


def noisy_at(latents: Tensor, noise: Tensor, t: Tensor, *, interpolant: str) -> Tensor:
    """The interpolant x_t (B, C, H, W) of latents (B, C, H, W), noise (B, C, H, W) and t (B,)."""
    at = coefficients(_per_row(t, latents), interpolant=interpolant)
    return at.a * latents + at.s * noise


def velocity_target(latents: Tensor, noise: Tensor, t: Tensor, *, interpolant: str) -> Tensor:
    """dx_t/dt (B, C, H, W), what the model regresses; on the linear interpolant noise - latents at every t."""
    at = coefficients(_per_row(t, latents), interpolant=interpolant)
    return at.a_slope * latents + at.s_slope * noise


def score(velocity: Tensor, noisy: Tensor, t: Tensor, *, interpolant: str) -> Tensor:
    """The gradient of log p_t at noisy (B, C, H, W), t (B,) in (0, 1]; linear: -(noisy + (1 - t) velocity) / t."""
    at = coefficients(_per_row(t, noisy), interpolant=interpolant)
    noise = (at.a * velocity - at.a_slope * noisy) / (at.a * at.s_slope - at.a_slope * at.s)
    return -noise / at.s


def _per_row(t: Tensor, rows: Tensor) -> Tensor:
    return t.view(-1, *[1] * (rows.dim() - 1))
