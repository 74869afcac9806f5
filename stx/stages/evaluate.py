"""evaluate: scores of samples against real images, in the feature space of a classifier; one part a milestone."""

from typing import Annotated

from stx.config.schema import Many, Positive, Problem, StageOptions, choice, group, input_, science
from stx.config.schema import Options as Group
from stx.spec import Cost
from stx.stages import base, classifier, images
from stx.stages.base import Bound, Inputs

RECIPE = 1
job = base.job
layouts = base.layouts

# metric -> the names of its scores
METRICS = {
    "frechet_distance": ("frechet_distance",),
    "label_accuracy": ("label_accuracy",),
    "precision_recall": ("precision", "recall"),
}
NEIGHBOURS = 3  # of precision_recall: each image needs so many others


class Extractor(Group):
    """Whose features are compared: a classifier trained on the real images."""

    classifier: str = input_("classifier")


class Options(StageOptions):
    """Features are extracted in chunks of `batch`."""

    samples: str = input_("sample")
    against: str = input_("images")
    extractor: Extractor = group()
    metrics: Many[Annotated[str, choice(*METRICS)]] = science(min_length=1)
    batch: Positive = science(100)


def check(options: Options, inputs: Inputs) -> list[Problem]:
    """Samples, real images and classifier are of one data set; no metric is asked for twice, or of too few images."""
    found = []
    if len(set(options.metrics)) < len(options.metrics):
        found.append(Problem(("metrics",), "a metric is named twice"))
    if "precision_recall" in options.metrics:
        found += _check_neighbours(options, inputs)
    learned = inputs["samples"].inputs["latents"].inputs["images"]
    judge = inputs["extractor.classifier"]
    return [
        *found,
        *_check_data(("against",), "these images are", inputs["against"], learned),
        *_check_data(
            ("extractor", "classifier"), f"the classifier {judge.name} learned", judge.inputs["images"], learned
        ),
    ]


def _check_neighbours(options: Options, inputs: Inputs) -> list[Problem]:
    samples, against = inputs["samples"], inputs["against"]
    num_samples, num_real = samples.options.num_samples, images.num_train(against)
    if min(num_samples, num_real) > NEIGHBOURS:
        return []
    what = (
        f"looks at the {NEIGHBOURS} nearest neighbours of an image, so it needs more than {NEIGHBOURS} images on each"
        f" side; {samples.name} makes {num_samples}, {against.name} has {num_real} to train on"
    )
    cure = "num_samples" if num_samples <= NEIGHBOURS else f"images in {against.name} (a smaller held_out)"
    place = ("metrics", options.metrics.index("precision_recall"))
    return [Problem(place, what, f"more {cure}, or remove precision_recall")]


def _check_data(path: tuple[str, ...], words: str, given: Bound, learned: Bound) -> list[Problem]:
    """Another cut of the same data set (split, seed, limit) is no other data set."""
    differ = [name for name in base.differing(given, learned) if name not in images.CUT]
    if not differ:
        return []
    what = f"the samples are of a run on {learned.name}, {words} {given.name}"
    return [Problem(path, what, f"scores compare within one data set; these differ in {', '.join(differ)}")]


def wants(options: Options, inputs: Inputs) -> tuple[int, ...]:
    """One part for each part of the samples."""
    return inputs["samples"].wants


def cost(options: Options, inputs: Inputs, wants: tuple[int, ...]) -> Cost:
    """Features of the samples and of the real images, for each part."""
    rows = inputs["samples"].options.num_samples + images.num_train(inputs["against"])
    return Cost(flops=rows * len(wants) * classifier.forward_flops(inputs["extractor.classifier"]))
