"""The exponential moving average of weights: ema <- decay ema + (1 - decay) weights, after every optimizer step.

It starts as a hard copy of the weights and is kept in fp32.
"""

import torch
from torch import Tensor


@torch.no_grad()
def update(ema: list[Tensor], weights: list[Tensor], *, decay: float) -> None:
    """One step of the average, in place, over pairs of tensors of equal shapes; one launch, not one per tensor."""
    torch._foreach_lerp_(ema, weights, 1 - decay)
