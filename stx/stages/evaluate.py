"""evaluate: scores of samples against real images, in the feature space of a classifier; one part a milestone."""

from typing import Annotated

from stx.config.schema import Many, Positive, Problem, StageOptions, choice, group, input_, science
from stx.config.schema import Options as Group
from stx.spec import Cost
from stx.stages import base, classifier, images
from stx.stages.base import Inputs

RECIPE = 1
job = base.job
layout = base.layout

# metric -> the names of its scores
METRICS = {
    "frechet_distance": ("frechet_distance",),
    "label_accuracy": ("label_accuracy",),
    "precision_recall": ("precision", "recall"),
}


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
    """Samples, real images and classifier agree in resolution and classes, and no metric is asked for twice."""
    found = []
    if len(set(options.metrics)) < len(options.metrics):
        found.append(Problem(("metrics",), "a metric is named twice"))
    made = inputs["samples"].inputs["autoencoder"].inputs["images"]
    judged = inputs["extractor.classifier"].inputs["images"]
    real = inputs["against"]
    for path, other in ((("against",), real), (("extractor", "classifier"), judged)):
        for name, of in (("resolution", _resolution), ("num_classes", _num_classes)):
            if of(made) != of(other):
                found.append(Problem(path, f"{name} is {of(other)} there, and {of(made)} of the samples"))
    return found


def wants(options: Options, inputs: Inputs) -> tuple[int, ...]:
    """One part for each part of the samples."""
    return inputs["samples"].wants


def cost(options: Options, inputs: Inputs, wants: tuple[int, ...]) -> Cost:
    """Features of the samples and of the real images, for each part."""
    rows = inputs["samples"].options.num_samples + images.num_train(inputs["against"])
    return Cost(flops=rows * len(wants) * classifier.forward_flops(inputs["extractor.classifier"]))


def _resolution(picture: base.Bound) -> int:
    resolution: int = picture.options.resolution
    return resolution


def _num_classes(picture: base.Bound) -> int:
    return images.source_of(picture).num_classes
