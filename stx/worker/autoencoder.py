"""The autoencoder stage: trains a small AutoencoderKL on the train split, measures it there and on held_out.

payload/autoencoder.safetensors   weights, diffusers' names
        config.json               diffusers' arguments; shift_factor and scaling_factor are those of the train split
        quality.json              PSNR in dB on held_out, of means and of posterior samples
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stx import records
from stx.data import noise
from stx.data.latents import scaled, unscaled
from stx.data.noise import Purpose
from stx.data.order import Order
from stx.model import autoencoder, rows
from stx.model.blocks import initialised
from stx.worker import publish, tensors
from stx.worker.attempt import Attempt
from stx.worker.device import device
from stx.worker.fit import fit
from stx.worker.images import read_info, read_split
from stx.worker.inputs import verified_payload
from stx.worker.progress import Progress, conclude

GRAD_CLIP = 1.0
ENCODE_BATCH = 64


@dataclass(frozen=True)
class Autoencoder:
    """A trained autoencoder, as the other stages use it."""

    model: nn.Module
    built_with: dict[str, Any]
    scale: float
    shift: float

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of its latents."""
        size = autoencoder.latent_size(self.built_with)
        return self.built_with["latent_channels"], size, size

    def encode(self, images: Tensor) -> Tensor:
        """Moments of one chunk of uint8 images."""
        with torch.no_grad():
            return autoencoder.encode(self.model, autoencoder.pixels(images.to(device()))).cpu()

    def decode(self, latents: Tensor) -> Tensor:
        """uint8 images of one chunk of latents as a diffusion model makes them."""
        with torch.no_grad():
            raw = unscaled(latents.to(device()), scale=self.scale, shift=self.shift)
            return autoencoder.to_uint8(autoencoder.decode(self.model, raw)).cpu()


def run(attempt: Attempt) -> None:
    """Train, measure, publish."""
    science, source = attempt.science, attempt.input("images")
    info = read_info(source)
    built_with = autoencoder.arguments(
        image_channels=info.channels,
        resolution=info.resolution,
        channels=tuple(science["channels"]),
        latent_channels=science["latent_channels"],
        layers_per_block=science["layers_per_block"],
        mid_attention=science["mid_attention"],
    )
    seed = noise.init_seed(science["seed"], Purpose.AUTOENCODER_INIT)
    model = initialised(lambda: autoencoder.build(built_with), seed=seed).to(device())
    images = read_split(source, "train").images
    progress = Progress(attempt, total=science["steps"] * science["batch"])
    fit(
        attempt,
        module=model,
        loss=_loss(model, images, science=science, latent_size=autoencoder.latent_size(built_with)),
        steps=science["steps"],
        batch=science["batch"],
        lr=science["lr"],
        grad_clip=GRAD_CLIP,
        log_every=attempt.where["log_every"],
    )
    model.eval()
    fitted = _measured(Autoencoder(model, built_with, scale=1.0, shift=0.0), images)
    quality = _quality(fitted, read_split(source, "held_out").images, seed=science["seed"], first=progress.total)
    _publish(attempt.stage.payload, fitted, quality=quality)
    conclude(progress, info=quality)


def load(payload: Path) -> Autoencoder:
    """A published autoencoder, on the device, in eval mode."""
    weights = verified_payload(payload, "autoencoder.safetensors")
    written = records.read(verified_payload(payload, "config.json"))
    config = {name: value for name, value in written.items() if not name.startswith("_")}
    model = autoencoder.build(config)
    model.load_state_dict(tensors.read(weights))
    model.requires_grad_(False).eval().to(device())
    return Autoencoder(model, config, scale=config["scaling_factor"], shift=config["shift_factor"])


def _loss(model: nn.Module, images: Tensor, *, science: Any, latent_size: int) -> Callable[[int], dict[str, Tensor]]:
    """The loss of step k, a function of the weights and k."""
    seed, batch, channels = science["seed"], science["batch"], science["latent_channels"]
    order = Order((len(images),), seed=seed, purpose=Purpose.AUTOENCODER_ORDER)

    def loss(step: int) -> dict[str, Tensor]:
        numbers = np.arange(step * batch, (step + 1) * batch)
        pixels = autoencoder.pixels(images[order.indices(numbers)].to(device()))
        drawn = _normals(seed, Purpose.AUTOENCODER_NOISE, numbers, channels=channels, size=latent_size)
        decoded, kl = autoencoder.reconstruct(model, pixels, drawn.to(device()))
        return {"reconstruction": F.mse_loss(decoded, pixels), "kl": science["kl_weight"] * kl}

    return loss


def _measured(fresh: Autoencoder, images: Tensor) -> Autoencoder:
    """The same, with the scale that its moments of `images` ask for, in the arguments too."""
    moments = rows.chunked(fresh.encode, images, batch=ENCODE_BATCH)
    scale, shift = autoencoder.unit_scale(moments)
    built_with = fresh.built_with | {"scaling_factor": scale, "shift_factor": shift}
    return Autoencoder(fresh.model, built_with, scale=scale, shift=shift)


def _quality(fitted: Autoencoder, images: Tensor, *, seed: int, first: int) -> dict[str, float]:
    """PSNR of reconstructions from means and from posterior samples.

    `first` is the first row of noise that training left unused.
    """
    channels, size, _ = fitted.latent_shape
    mean, std = rows.chunked(fitted.encode, images, batch=ENCODE_BATCH).chunk(2, dim=1)
    numbers = np.arange(first, first + len(images))
    drawn = _normals(seed, Purpose.AUTOENCODER_NOISE, numbers, channels=channels, size=size)
    found: dict[str, float] = {"held_out_images": len(images)}
    for name, posterior_noise in (("psnr", torch.zeros_like(drawn)), ("psnr_sampled", drawn)):
        latents = scaled(mean, std, posterior_noise, scale=fitted.scale, shift=fitted.shift)
        found[name] = autoencoder.psnr(images, rows.chunked(fitted.decode, latents, batch=ENCODE_BATCH))
    return found


def _publish(payload: Path, fitted: Autoencoder, *, quality: dict[str, float]) -> None:
    publish.publish_chunks(payload / "autoencoder.safetensors", tensors.chunks(fitted.model.state_dict()))
    publish.publish_json(payload / "config.json", {"_class_name": "AutoencoderKL"} | fitted.built_with)
    publish.publish_json(payload / "quality.json", quality)


def _normals(seed: int, purpose: Purpose, index: np.ndarray, *, channels: int, size: int) -> Tensor:
    drawn = noise.normals(seed, purpose, index, count=channels * size * size)
    return torch.from_numpy(drawn).reshape(len(index), channels, size, size)
