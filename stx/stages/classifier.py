"""classifier: a small CNN trained on the train images; its last hidden layer is the feature space of the scores."""

from stx import sizes
from stx.config.schema import Many, Positive, Problem, StageOptions, input_, science, where
from stx.spec import Cost
from stx.stages import base, images
from stx.stages.base import Bound, Inputs

RECIPE = 1
job = base.job
layouts = base.layouts


class Options(StageOptions):
    """One convolution for each entry of `channels`; the last entry is the number of features."""

    images: str = input_("images")
    steps: Positive = science(400)
    batch: Positive = science(64)
    lr: float = science(1e-3, gt=0)
    channels: Many[Positive] = science((16, 32, 64), min_length=1)
    log_every: Positive = where(50)


def check(options: Options, inputs: Inputs) -> list[Problem]:
    """The resolution can be halved as often as there are convolutions."""
    resolution, levels = inputs["images"].options.resolution, len(options.channels)
    if resolution >= 2 ** (levels - 1):
        return []
    return [Problem(("channels",), f"{levels} levels halve a resolution of {resolution} to nothing")]


def smoke(options: Options) -> dict[str, int]:
    """Two steps."""
    return {"steps": 2}


def forward_flops(classifier: Bound) -> float:
    """Features and logits of one image."""
    return _flops(classifier.options, classifier.inputs["images"])


def cost(options: Options, inputs: Inputs, wants: tuple[int, ...]) -> Cost:
    """Forward and backward."""
    one = 3.0 * _flops(options, inputs["images"])
    return Cost(flops=one * options.steps * options.batch)


def _flops(options: Options, picture: Bound) -> float:
    return sizes.classifier_flops(
        options.channels, resolution=picture.options.resolution, image_channels=images.source_of(picture).channels
    )
