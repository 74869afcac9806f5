"""latents: the train images, encoded; WebDataset shards of moments (mean and standard deviation)."""

from typing import Annotated

from stx import sizes
from stx.config.schema import Positive, Problem, StageOptions, choice, input_, science
from stx.sizes import LatentShape
from stx.spec import Cost
from stx.stages import autoencoder, base, images
from stx.stages.base import Bound, Inputs

RECIPE = 1
job = base.job
layouts = base.row_layouts
VALUE_BYTES = {"fp32": 4, "fp16": 2}


class Options(StageOptions):
    """Rows are encoded in chunks of `batch`; a shard holds `shard` rows, a whole number of chunks.

    `flips` adds every image once more, mirrored left to right: an epoch then has twice as many rows.
    """

    images: str = input_("images")
    autoencoder: str = input_("autoencoder")
    dtype: Annotated[str, choice(*VALUE_BYTES)] = science("fp32")
    batch: Positive = science(64)
    shard: Positive = science(512)
    flips: bool = science(False, neutral=False)


def latent_shape(latents: Bound) -> LatentShape:
    """What a network on these latents sees."""
    encoder, picture = latents.inputs["autoencoder"], latents.inputs["images"]
    return _shape(encoder, picture)


def num_samples(latents: Bound) -> int:
    """Rows: one for each train image, or two with flips."""
    return _num_rows(latents.options, latents.inputs)


def check(options: Options, inputs: Inputs) -> list[Problem]:
    """Shards hold whole chunks, and the autoencoder was made for images like these."""
    found = base.check_shards(options.batch, options.shard)
    encoder, picture = inputs["autoencoder"], inputs["images"]
    seen, given = (images.source_of(one).channels for one in (encoder.inputs["images"], picture))
    factor, resolution = autoencoder.downsampling(encoder), picture.options.resolution
    if seen != given:
        what = (
            f"the autoencoder {encoder.name} is for images of {seen} channel(s), those of {picture.name} have {given}"
        )
        found.append(Problem(("autoencoder",), what, f"give an autoencoder of {picture.name}"))
    if resolution % factor:
        what = f"the autoencoder {encoder.name} divides the resolution by {factor}, {picture.name} has {resolution}"
        found.append(Problem(("autoencoder",), what, f"a resolution that is a multiple of {factor} would do"))
    return found


def cost(options: Options, inputs: Inputs, wants: tuple[int, ...]) -> Cost:
    """Encoding every row."""
    encoder, count = inputs["autoencoder"], _num_rows(options, inputs)
    latent = _shape(encoder, inputs["images"])
    return Cost(
        flops=count * autoencoder.encode_flops(encoder),
        bytes=count * sizes.latent_bytes(latent, value_bytes=VALUE_BYTES[options.dtype]),
    )


def _num_rows(options: Options, inputs: Inputs) -> int:
    return images.num_train(inputs["images"]) * (2 if options.flips else 1)


def _shape(encoder: Bound, picture: Bound) -> LatentShape:
    return LatentShape(
        channels=autoencoder.latent_channels(encoder),
        size=picture.options.resolution // autoencoder.downsampling(encoder),
        num_classes=images.source_of(picture).num_classes,
    )
