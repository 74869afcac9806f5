"""No alignment: the vanilla SiT."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from stx.alignment.base import AlignmentOutput
from stx.data.loader import Batch
from stx.model.sit import SiT
from stx.sizes import SitShape


class NoAlignment(nn.Module):
    """No taps, no parameters, no terms."""

    taps = ()

    def forward(self, batch: Batch, hidden: Mapping[int, Tensor]) -> AlignmentOutput:
        """Nothing."""
        return AlignmentOutput(terms={}, numbers={})

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
) -> NoAlignment:
    """No option of this method says anything."""
    return NoAlignment()
