"""autoencoder: a KL autoencoder (diffusers' AutoencoderKL) trained on an images stage."""

from stx import sizes
from stx.config.schema import Many, Positive, Problem, StageOptions, input_, science, where
from stx.spec import Cost
from stx.stages import base, images
from stx.stages.base import Bound, Inputs

RECIPE = 1
job = base.job
layout = base.layout


class Options(StageOptions):
    """The resolution halves between two entries of `channels`."""

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


def downsampling(autoencoder: Bound) -> int:
    """Pixels along one side of a latent."""
    factor: int = 2 ** (len(autoencoder.options.channels) - 1)
    return factor


def check(options: Options, inputs: Inputs) -> list[Problem]:
    """The resolution can be halved as often as there are levels."""
    resolution, factor = inputs["images"].options.resolution, 2 ** (len(options.channels) - 1)
    if resolution % factor == 0:
        return []
    what = f"{len(options.channels)} levels divide the resolution by {factor}, and {resolution} is not divisible by it"
    return [Problem(("channels",), what)]


def cost(options: Options, inputs: Inputs, wants: tuple[int, ...]) -> Cost:
    """Forward and backward through both sides; a few megabytes of weights."""
    picture = inputs["images"]
    one = _flops(options, picture, side=sizes.encode_flops) + _flops(options, picture, side=sizes.decode_flops)
    return Cost(flops=3.0 * one * options.steps * options.batch)


def encode_flops(autoencoder: Bound) -> float:
    """Encoding one image."""
    return _flops(autoencoder.options, autoencoder.inputs["images"], side=sizes.encode_flops)


def decode_flops(autoencoder: Bound) -> float:
    """Decoding one image."""
    return _flops(autoencoder.options, autoencoder.inputs["images"], side=sizes.decode_flops)


def _flops(options: Options, picture: Bound, *, side: sizes.Side) -> float:
    return side(
        options.channels,
        resolution=picture.options.resolution,
        layers=options.layers_per_block,
        image_channels=images.source_of(picture).channels,
        latent_channels=options.latent_channels,
    )
