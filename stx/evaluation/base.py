"""What a metric is: one file of this package, named after itself, with a function `compute`.

    compute(generated: Extracted, real: Extracted) -> {name of a score: number}

A metric sees what the extractor made of the images, not the images. It draws no random number and looks at all rows it
is given.
"""

from typing import NamedTuple, Protocol

from torch import Tensor


class Extracted(NamedTuple):
    """One set of images in the eyes of an extractor, on the CPU: features (N, D) f32, logits (N, K) f32, labels (N,)
    int64.

    `labels` are those that generated images were asked for, or those that real ones have.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor


class Metric(Protocol):
    """A module of this package."""

    def compute(self, generated: Extracted, real: Extracted) -> dict[str, float]:
        """Its scores by name."""
