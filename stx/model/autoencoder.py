"""A small KL autoencoder (diffusers AutoencoderKL), and the only place where uint8 becomes pixels and back.

    pixels    x = uint8 / 127.5 - 1, in [-1, 1];  back: clamp to [-1, 1], (x + 1) * 127.5, rounded half to even
    moments   concat[mean, STD] of q(z | x): STD, not the log-variance, as posterior samples are mean + STD * noise
    loss      mean over pixels of (decoded - x)^2 + kl_weight * mean over latent elements of KL(q(z | x), N(0, 1))

What a diffusion model sees is (posterior sample - shift) * scale, of mean 0 and variance 1 over the train split
(diffusers' shift_factor and scaling_factor). `unit_scale` measures the two numbers; data/latents.py applies and inverts
them. Weights have the names of diffusers, and `arguments` are its, so AutoencoderKL opens what we write.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class UnitScale(NamedTuple):
    """latents = (raw - shift) * scale."""

    scale: float
    shift: float


class Reconstruction(NamedTuple):
    """What training an autoencoder looks at."""

    images: Tensor
    kl: Tensor


def arguments(
    *,
    image_channels: int,
    resolution: int,
    channels: tuple[int, ...],
    latent_channels: int,
    layers_per_block: int,
    mid_attention: bool,
) -> dict[str, Any]:
    """The arguments of diffusers' AutoencoderKL. Each entry of `channels` but the last halves the resolution."""
    return {
        "in_channels": image_channels,
        "out_channels": image_channels,
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "block_out_channels": list(channels),
        "layers_per_block": layers_per_block,
        "latent_channels": latent_channels,
        # At most 32 groups, as published, of at least two channels in every layer.
        "norm_num_groups": math.gcd(32, *(width // 2 for width in channels)),
        "sample_size": resolution,
        "mid_block_add_attention": mid_attention,
    }


def latent_size(built_with: Mapping[str, Any]) -> int:
    """Height and width of the latents of an autoencoder built with these arguments."""
    return int(built_with["sample_size"]) // 2 ** (len(built_with["block_out_channels"]) - 1)


def build(built_with: Mapping[str, Any]) -> nn.Module:
    """An AutoencoderKL with fresh weights (build it through blocks.initialised)."""
    # Here and not above: whoever only scales latents or rounds pixels must not wait two seconds for diffusers.
    from diffusers.models import AutoencoderKL

    return AutoencoderKL(**built_with)


def pixels(images: Tensor) -> Tensor:
    """uint8 images as float32 in [-1, 1]."""
    return images.to(torch.float32) / 127.5 - 1.0


def to_uint8(images: Tensor) -> Tensor:
    """The inverse of `pixels`, rounded half to even; what lies outside [-1, 1] is clamped."""
    return ((images.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)


def encode(model: nn.Module, images: Tensor) -> Tensor:
    """Moments (B, 2C, h, w), mean then STD, of images in [-1, 1]."""
    posterior = model.encode(images).latent_dist
    return torch.cat([posterior.mean, posterior.std], dim=1)


def decode(model: nn.Module, raw: Tensor) -> Tensor:
    """Images, about in [-1, 1], of the autoencoder's own latents."""
    return model.decode(raw).sample


def reconstruct(model: nn.Module, images: Tensor, noise: Tensor) -> Reconstruction:
    """Images decoded from a posterior sample; KL(q(z | x), N(0, 1)), a mean over latent elements."""
    posterior = model.encode(images).latent_dist
    decoded = model.decode(posterior.mean + posterior.std * noise).sample
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1.0 - posterior.logvar)
    return Reconstruction(decoded, kl.mean())


def unit_scale(moments: Tensor) -> UnitScale:
    """What gives posterior samples of these moments mean 0 and variance 1 over all elements; in float64."""
    mean, std = moments.double().chunk(2, dim=1)
    shift = mean.mean()
    variance = ((mean - shift).square() + std.square()).mean()
    return UnitScale(scale=float(variance.rsqrt()), shift=float(shift))


def squared_error(images: Tensor, reconstructed: Tensor) -> Tensor:
    """Sum of squared differences of each uint8 image (B,); whole numbers in float64, so no order of sums matters."""
    return (images.double() - reconstructed.double()).square().sum(dim=(1, 2, 3))


def psnr(error: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of the squared error averaged over a whole set of uint8 images."""
    return float(10.0 * torch.log10(255.0**2 / error))
