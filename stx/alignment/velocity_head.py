"""Phase 1 of Self-Transcendence (arXiv 2601.07773): a shallow head must already predict the velocity.

    velocity_head = weight * R(mean_{C,H,W} (head(h_k) - velocity)^2)
    head = Linear SiLU Linear SiLU Linear, LayerNorm without affine, Linear, unpatchify
    k = head_block, R = window_reduction, see base.py; velocity of the run's interpolant, linear: noise - latents

The target is the velocity, not the clean latent, whatever the prose of the paper says; the released code decides. The
head does not see t or the label, and is not zero-initialised. Its gradient reaches blocks 1..k.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from stx.alignment.base import AlignmentOutput, aligned_rows, window_term
from stx.data.loader import Batch
from stx.flow.interpolant import velocity_target
from stx.flow.objective import diffusion_loss
from stx.model import blocks
from stx.model.sit import SiT
from stx.sizes import SitShape


class VelocityHead(nn.Module):
    """The head and its term."""

    def __init__(
        self,
        shape: SitShape,
        *,
        in_channels: int,
        head_block: int,
        projector_width: int,
        weight: float,
        window_reduction: str,
        interpolant: str,
    ) -> None:
        super().__init__()
        self.taps = (head_block,)
        self.patch = shape.patch
        self.weight = weight
        self.window_reduction = window_reduction
        self.interpolant = interpolant
        self.projector = blocks.projector(shape.width, hidden=projector_width, out=shape.width)
        self.norm = blocks.layer_norm(shape.width)
        self.linear = nn.Linear(shape.width, shape.patch**2 * in_channels)
        blocks.initialise_linears(self.linear)

    def velocity(self, hidden: Tensor) -> Tensor:
        """Hidden state (R, T, D) -> velocity (R, C, H, W)."""
        return blocks.unpatchify(self.linear(self.norm(self.projector(hidden))), patch=self.patch)

    def forward(self, batch: Batch, hidden: Mapping[int, Tensor]) -> AlignmentOutput:
        """hidden {head_block: (B, T, D)}. Rows outside the window are not computed, unless `released` wants them."""
        if self.weight == 0 or batch.window_rows == 0:
            return AlignmentOutput(terms={}, numbers={})
        rows = aligned_rows(batch, window_reduction=self.window_reduction)
        velocity = self.velocity(hidden[self.taps[0]][rows])
        clean, noise, t = batch.latents[rows], batch.noise[rows], batch.t[rows]
        losses = diffusion_loss(velocity, velocity_target(clean, noise, t, interpolant=self.interpolant))
        term = window_term(losses, batch, window_reduction=self.window_reduction, weight=self.weight)
        return AlignmentOutput(terms={"velocity_head": term}, numbers={})

    def after_step(self, step: int) -> None:
        """Follows nothing."""


def build(
    options: Mapping[str, Any],
    *,
    shape: SitShape,
    in_channels: int,
    input_size: int,
    num_classes: int,
    interpolant: str,
    teacher: SiT | None = None,
    feature_width: int | None = None,
) -> VelocityHead:
    """From the options of stx/config/alignment/velocity_head.py. It has no teacher."""
    return VelocityHead(
        shape,
        in_channels=in_channels,
        head_block=options["head_block"],
        projector_width=options["projector_width"],
        weight=options["weight"],
        window_reduction=options["window_reduction"],
        interpolant=interpolant,
    )
