"""The share of generated images that the extractor's classifier takes for the label they were asked for; higher is
better.

Bounded by the classifier itself, whose accuracy on held-out real images stands in the protocol.
"""

from stx.evaluation.base import Extracted
from stx.model.classifier import accuracy


def compute(generated: Extracted, real: Extracted) -> dict[str, float]:
    """{"label_accuracy": ...}."""
    return {"label_accuracy": accuracy(generated.logits, generated.labels)}
