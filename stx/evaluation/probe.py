"""Linear probes: how much of the label a ridge classifier, in closed form, finds in features.

    z = (feature - mean) / deviation of the training features;  Y = one-hot labels less their mean
    W = argmin |Z W - Y|^2 / N + ridge |W|^2 = (Z'Z / N + ridge 1)^-1 Z'Y / N
    the label of a feature is the largest entry of z W + the mean of the one-hot labels

Nothing is iterated and nothing drawn: equal features give an equal accuracy. All arithmetic is float64. A feature that
does not vary over the training rows counts as zero.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve


class Labelled(NamedTuple):
    """features (N, D) and labels (N,)."""

    features: NDArray[np.floating]
    labels: NDArray[np.int64]


def accuracy(train: Labelled, test: Labelled, *, num_classes: int, ridge: float) -> float:
    """The share of `test` that a classifier fitted to `train` gets right."""
    features = train.features.astype(np.float64)
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    # Below the precision of its fp32 features a deviation is rounding, and dividing by it would make rounding count.
    varies = deviation > np.finfo(np.float32).eps * np.abs(mean)
    inverse = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
    rows, answers = (features - mean) * inverse, np.eye(num_classes)[train.labels]
    prior = answers.mean(axis=0)
    gram = rows.T @ rows / len(rows) + ridge * np.eye(rows.shape[1])
    weights = solve(gram, rows.T @ (answers - prior) / len(rows), assume_a="pos")
    told = (test.features.astype(np.float64) - mean) * inverse @ weights + prior
    return float(np.mean(told.argmax(axis=1) == test.labels))
