"""The linear interpolant: noisy = (1-t) latents + t noise, with velocity noise - latents (SiT, arXiv 2401.08740).

t=1 is noise (REPA, SRA, Self-Transcendence). The SiT paper's own code counts the other way: t = 1 - t of SiT.
"""

from torch import Tensor


def noisy_at(latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The interpolant x_t (B, C, H, W) of latents (B, C, H, W), noise (B, C, H, W) and t (B,)."""
    t = t.view(-1, *[1] * (latents.dim() - 1))
    return (1 - t) * latents + t * noise


def velocity_target(latents: Tensor, noise: Tensor) -> Tensor:
    """dx_t/dt (B, C, H, W), what the model regresses; the same at every t."""
    return noise - latents
