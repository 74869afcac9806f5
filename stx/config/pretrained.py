"""Shapes of autoencoders that were trained elsewhere (diffusers' AutoencoderKL in a folder or on the hub); no torch.

A folder has config.json. Of a hub id the shape is known here (PRESETS) or read from the config.json in the local hub
cache: a plan needs no network.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stx import records
from stx.errors import ConfigError, StoreError

CONFIG = "config.json"
CLASS = "AutoencoderKL"


@dataclass(frozen=True)
class AutoencoderShape:
    """What consumers of an autoencoder need to know. The resolution halves between two entries of `channels`.

    `own_scale` is whether its config has one scale and shift for all latent channels.
    """

    channels: tuple[int, ...]
    latent_channels: int
    layers_per_block: int
    image_channels: int
    own_scale: bool = True


_SD = AutoencoderShape((128, 256, 512, 512), latent_channels=4, layers_per_block=2, image_channels=3)
PRESETS: Mapping[str, AutoencoderShape] = {"stabilityai/sd-vae-ft-mse": _SD, "stabilityai/sd-vae-ft-ema": _SD}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def of_folder(folder: Path) -> AutoencoderShape:
    """The shape in a folder's config.json."""
    path = folder / CONFIG
    try:
        config = records.read(path.resolve())
    except (OSError, RuntimeError, StoreError) as error:
        hint = f"an autoencoder is a folder with {CONFIG} and weights, as diffusers' save_pretrained writes it"
        reason = error.what if isinstance(error, StoreError) else getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{CONFIG} cannot be read: {reason}", where=str(folder), hint=hint) from error
    return _shape(config, where=str(path))


def of_hub(name: str, revision: str) -> AutoencoderShape:
    """The shape of a hub id at a commit."""
    if not _HUB_ID.fullmatch(name):
        raise ConfigError("not a hub id", hint="for example stabilityai/sd-vae-ft-mse")
    if name in PRESETS:
        return PRESETS[name]
    # Here and not above: it takes half a second, and only plans with a hub id of another name need it.
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, CONFIG, revision=revision)
    if not isinstance(found, str):
        known = f"known without it: {', '.join(PRESETS)}"
        raise ConfigError(
            "its shape is not known: no config.json of that revision in the local hub cache",
            hint=f"with network: hf download {name} --revision {revision}; {known}",
        )
    return of_folder(Path(found).parent)


def is_commit(revision: str) -> bool:
    """Whether a revision stands for one content for ever: a branch or a tag may move."""
    return bool(_COMMIT.fullmatch(revision))


def _shape(config: Any, *, where: str) -> AutoencoderShape:
    name = config.get("_class_name") if isinstance(config, Mapping) else None
    if name != CLASS:
        raise ConfigError(f"_class_name is {name!r}, not {CLASS}", where=where, hint=f"only diffusers' {CLASS} is read")
    channels, numbers = config.get("block_out_channels"), {"layers_per_block": 1, **config}
    if not isinstance(channels, list) or not channels or not all(isinstance(width, int) for width in channels):
        raise ConfigError("block_out_channels is no list of widths", where=where)
    for field in ("latent_channels", "in_channels", "layers_per_block"):
        if not isinstance(numbers.get(field), int):
            raise ConfigError(f"{field} is no whole number", where=where)
    return AutoencoderShape(
        channels=tuple(channels),
        latent_channels=numbers["latent_channels"],
        layers_per_block=numbers["layers_per_block"],
        image_channels=numbers["in_channels"],
        own_scale=config.get("latents_mean") is None,
    )
