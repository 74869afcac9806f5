"""The diffusion loss: the mean square of velocity - target, per sample (SiT, arXiv 2401.08740; unweighted, as in REPA).

Per sample, because the caller divides the sum by the global batch, which every rank knows, and not by the rows it
holds.
"""

from torch import Tensor


def diffusion_loss(velocity: Tensor, target: Tensor) -> Tensor:
    """velocity, target (B, ...) -> (B,), in fp32."""
    # The released code of Self-Transcendence lost its window to a silent broadcast; here shapes must agree.
    assert velocity.shape == target.shape, f"{tuple(velocity.shape)} against {tuple(target.shape)}"
    return (velocity.float() - target.float()).square().flatten(1).mean(1)
