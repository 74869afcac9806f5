"""What the options of all alignment methods have in common, and how one is chosen by its `method`.

window_reduction says how the losses of the rows inside the window become one number:
    in_window    mean over the rows inside (default; what the paper describes)
    over_batch   zero outside, mean over the whole batch: weaker by the window's share
    released     what the released code really does: the mean over ALL rows times the share of rows inside, so that
                 alignment acts at every t; the teacher must see all rows, so a feature cache cannot serve it
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Any

from stx import named
from stx.config.schema import Options, Positive, Problem, Window, choice, refusals, science
from stx.sizes import LatentShape, SitShape
from stx.times import Distribution

PACKAGE = "stx.config.alignment"


class AlignmentOptions(Options):
    """The options of a method; `method` is the file's name."""

    method: str = science()


class WindowedOptions(AlignmentOptions):
    """Options of the methods that act inside a window of t, with a projector of their own."""

    window: Window = science((0.4, 0.7))
    weight: float = science(0.5, ge=0)
    window_reduction: Annotated[str, choice("in_window", "over_batch", "released")] = science("in_window")
    projector_width: Positive = science(2048)
    stop_step: Positive | None = science(None)


@dataclass(frozen=True)
class Student:
    """The run that a method is part of, as far as its rules need to know it."""

    shape: SitShape
    latent: LatentShape
    distribution: Distribution


@dataclass(frozen=True)
class AlignmentCost:
    """What a method adds to one image until its stop step, an expectation over t; `teacher_flops_per_image` is what an
    online teacher adds, told for a cached one too.
    """

    flops_per_image: float
    parameters: int
    teacher_flops_per_image: float = 0.0


def aligned_share(options: WindowedOptions, student: Student) -> float:
    """The share of rows that the method acts on until its stop step."""
    if options.weight == 0:
        return 0.0
    return 1.0 if options.window_reduction == "released" else student.distribution.share(options.window)


def check_block(name: str, block: int, shape: SitShape, *, owner: str) -> list[Problem]:
    """A block number is 1-based and within the network."""
    if 1 <= block <= shape.depth:
        return []
    what = f"the {owner} {shape.name} has {shape.depth} blocks, so {name} must be in 1..{shape.depth}"
    return [Problem(("alignment", name), what)]


@functools.cache
def methods() -> list[str]:
    """The methods there are: a sweep asks ten thousand times, so the folder is listed once."""
    return named.names(PACKAGE)


@functools.cache
def module(method: str) -> ModuleType:
    """The file of a method that is known to be there."""
    return named.load(PACKAGE, method)


def parse_alignment(value: Any) -> AlignmentOptions:
    """Pick the method's options by name and validate them; raises what a pydantic validator may raise."""
    if isinstance(value, AlignmentOptions):
        return value
    known = methods()
    if not isinstance(value, Mapping):
        raise refusals([Problem((), "must be a mapping with a method", f"known methods: {', '.join(known)}")])
    if "method" not in value:
        raise refusals([Problem(("method",), '"method" is required and not given', f"known: {', '.join(known)}")])
    method = value["method"]
    if method not in known:
        error = named.unknown(str(method), known, what=f"no file stx/config/alignment/{method}.py")
        raise refusals([Problem(("method",), error.what, error.hint)])
    options: AlignmentOptions = module(method).Options.model_validate(value)
    return options
