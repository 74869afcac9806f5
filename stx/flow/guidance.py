"""Classifier-free guidance (arXiv 2207.12598) on an interval of t (arXiv 2404.07724):

    v = v_null + guidance (v_cond - v_null)    for low <= t <= high;    v = v_cond elsewhere.

Guidance 1 is no guidance. Where nothing is to be combined, nothing is computed: the second pass is not made.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from stx.flow.solvers import VelocityAt
from stx.times import inside

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]


def combine(conditional: Tensor, unconditional: Tensor, *, guidance: float) -> Tensor:
    """The extrapolation from the unconditional towards, and for guidance > 1 beyond, the conditional one."""
    return unconditional + guidance * (conditional - unconditional)


def guided_velocity(
    velocity: Velocity, labels: Tensor, *, null_label: int, guidance: float, interval: tuple[float, float]
) -> VelocityAt:
    """The guided velocity as a function of (noisy (B, C, H, W), t), for a solver.

    `velocity(noisy, t (B,), labels (B,))` is asked once per call: with 2B rows, the conditional ones first, where the
    two are combined; with B rows elsewhere. labels (B,) int64.
    """
    null_labels = torch.full_like(labels, null_label)
    both_labels = torch.cat([labels, null_labels])

    def velocity_at(noisy: Tensor, t: float) -> Tensor:
        if guidance == 1 or not inside(t, interval):
            return velocity(noisy, times(noisy, t), labels)
        both = torch.cat([noisy, noisy])
        conditional, unconditional = velocity(both, times(both, t), both_labels).chunk(2)
        return combine(conditional, unconditional, guidance=guidance)

    return velocity_at


def times(noisy: Tensor, t: float) -> Tensor:
    """t for every row of noisy (B, C, H, W): (B,)."""
    return torch.full((noisy.shape[0],), t, dtype=noisy.dtype, device=noisy.device)
