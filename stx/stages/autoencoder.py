"""autoencoder: a KL autoencoder (diffusers' AutoencoderKL), trained on an images stage or trained elsewhere.

    {kind: autoencoder, images: images, steps: 400}                                    trained here
    {kind: autoencoder, images: images, path: FOLDER, version: WORD}                   as save_pretrained writes it
    {kind: autoencoder, images: images, hub: stabilityai/sd-vae-ft-mse, revision: SHA}

Whatever its origin, its quality is measured on the held-out images.
"""

from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field

from stx import sizes
from stx.config import pretrained
from stx.config.pretrained import AutoencoderShape
from stx.config.schema import Many, Positive, Problem, StageOptions, UserPath, choice, input_, science, where
from stx.errors import ConfigError
from stx.spec import Cost
from stx.stages import base, images
from stx.stages.base import Bound, Inputs

RECIPE = 1
job = base.job
layouts = base.layouts

OF_TRAINING = ("steps", "batch", "lr", "channels", "latent_channels", "layers_per_block", "mid_attention", "kl_weight")


class Options(StageOptions):
    """The resolution halves between two entries of `channels`.

    `scale` says which numbers make the latents of a pretrained autoencoder standard: those of its config (the default),
    or those measured on the train images, as for one that is trained here.
    """

    images: str = input_("images")
    steps: Positive = science(400)
    batch: Positive = science(32)
    lr: float = science(2e-3, gt=0)
    channels: Many[Positive] = science((16, 32, 32), min_length=1)
    latent_channels: Positive = science(4)
    layers_per_block: Positive = science(1)
    mid_attention: bool = science(False)
    kl_weight: float = science(1e-3, ge=0)
    log_every: Positive = where(50)
    path: UserPath | None = where(None)
    version: Annotated[str, Field(min_length=1)] | None = science(None, neutral=None)
    hub: str | None = science(None, neutral=None)
    revision: str | None = science(None, neutral=None)
    scale: Annotated[str, choice("config", "measured")] | None = science(None, neutral=None)

    @property
    def pretrained(self) -> bool:
        """Whether it was trained elsewhere."""
        return self.path is not None or self.hub is not None

    @cached_property
    def found(self) -> AutoencoderShape:
        """The shape of a pretrained one; ConfigError says why it cannot be known."""
        if self.path is not None:
            return pretrained.of_folder(Path(self.path))
        return pretrained.of_hub(self.hub or "", self.revision or "")


def latent_channels(autoencoder: Bound) -> int:
    """Channels of its latents."""
    return _shape(autoencoder.options, autoencoder.inputs["images"]).latent_channels


def downsampling(autoencoder: Bound) -> int:
    """Pixels along one side of a latent."""
    return _factor(_shape(autoencoder.options, autoencoder.inputs["images"]))


def check(options: Options, inputs: Inputs) -> list[Problem]:
    """One of the three forms, and images that fit."""
    found = _check_form(options)
    if found:
        return found
    picture = inputs["images"]
    if options.pretrained:
        try:
            options.found  # noqa: B018 - reads the config, or raises
        except ConfigError as error:
            what = ": ".join(filter(None, (error.where, error.what)))
            return [Problem(("path" if options.path else "hub",), what, error.hint)]
    shape, resolution = _shape(options, picture), picture.options.resolution
    if resolution % _factor(shape):
        found.append(_undivided(options, shape, picture))
    return found + (_check_pretrained(options, picture) if options.pretrained else [])


def _undivided(options: Options, shape: AutoencoderShape, picture: Bound) -> Problem:
    factor, levels = _factor(shape), list(shape.channels)
    what = (
        f"the {len(levels)} levels of channels {levels} divide the resolution by {factor}, and the resolution of"
        f" {picture.name} is {picture.options.resolution}"
    )
    hint = f"give stages.{picture.stage}.resolution a multiple of {factor}"
    if options.pretrained:
        return Problem(("path" if options.path else "hub",), what, hint)
    place = "channels" if "channels" in options.model_fields_set else "images"
    return Problem((place,), what, f"{hint}, or channels fewer levels")


def _check_form(options: Options) -> list[Problem]:
    """The options of one form, complete, and none of another."""
    given = options.model_fields_set
    if options.path is not None and options.hub is not None:
        return [Problem(("hub",), "the autoencoder comes from path or from hub, not from both")]
    pairs = (("path", "version", "a folder of your own needs it"), ("hub", "revision", "a hub id needs it"))
    found = []
    for origin, word, needs in pairs:
        if getattr(options, origin) is not None and getattr(options, word) is None:
            found.append(Problem((), f'"{word}" is required and not given: {needs}'))
        elif getattr(options, origin) is None and word in given:
            found.append(Problem((word,), f"{word} belongs to {origin}, which is not given"))
    if options.revision is not None and options.hub is not None and not pretrained.is_commit(options.revision):
        what = "is no commit: a branch or a tag may move"
        found.append(Problem(("revision",), what, "40 hexadecimal digits, as the hub shows them under `History`"))
    if options.pretrained:
        what = "belongs to training, and this autoencoder is trained already"
        found += [Problem((name,), what, "remove it") for name in (*OF_TRAINING, "log_every") if name in given]
    elif options.scale is not None:
        found.append(Problem(("scale",), "belongs to path or hub: the scale of one that is trained here is measured"))
    return found


def _check_pretrained(options: Options, picture: Bound) -> list[Problem]:
    place, seen, given = "path" if options.path else "hub", options.found, images.source_of(picture).channels
    found = []
    if seen.image_channels != given:
        what = f"it was trained on images of {seen.image_channels} channels, those of {picture.name} have {given}"
        found.append(Problem((place,), what))
    if not seen.own_scale and options.scale != "measured":
        found.append(Problem((place,), "its config scales each latent channel apart", "give scale: measured"))
    return found


def cost(options: Options, inputs: Inputs, wants: tuple[int, ...]) -> Cost:
    """Forward and backward through both sides, a few megabytes of weights; or the held-out images there and back."""
    picture = inputs["images"]
    one = _flops(options, picture, side=sizes.encode_flops) + _flops(options, picture, side=sizes.decode_flops)
    if options.pretrained:
        return Cost(flops=one * picture.options.held_out)
    return Cost(flops=3.0 * one * options.steps * options.batch)


def encode_flops(autoencoder: Bound) -> float:
    """Encoding one image."""
    return _flops(autoencoder.options, autoencoder.inputs["images"], side=sizes.encode_flops)


def decode_flops(autoencoder: Bound) -> float:
    """Decoding one image."""
    return _flops(autoencoder.options, autoencoder.inputs["images"], side=sizes.decode_flops)


def smoke(options: Options) -> dict[str, int]:
    """Two steps, of one that is trained."""
    return {} if options.pretrained else {"steps": 2}


def _shape(options: Options, picture: Bound) -> AutoencoderShape:
    if options.pretrained:
        return options.found
    channels = images.source_of(picture).channels
    return AutoencoderShape(options.channels, options.latent_channels, options.layers_per_block, channels)


def _factor(shape: AutoencoderShape) -> int:
    factor: int = 2 ** (len(shape.channels) - 1)
    return factor


def _flops(options: Options, picture: Bound, *, side: sizes.Side) -> float:
    shape = _shape(options, picture)
    return side(
        shape.channels,
        resolution=picture.options.resolution,
        layers=shape.layers_per_block,
        image_channels=shape.image_channels,
        latent_channels=shape.latent_channels,
    )
