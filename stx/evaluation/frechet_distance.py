"""Frechet distance between two normal distributions, fitted to the features of generated and of real images; lower is
better.

    |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))

The arithmetic is torch-fidelity's, in float64. In Inception's features it is called FID; here it is named after what it
is, and the extractor stands in the protocol beside it. Fewer samples than features make S1 singular, and few samples
bias the distance upwards: compare equal numbers only.
"""

import torch
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from stx.evaluation.base import Extracted


def compute(generated: Extracted, real: Extracted) -> dict[str, float]:
    """{"frechet_distance": ...}."""
    result = fid_statistics_to_metric(_statistics(generated.features), _statistics(real.features), verbose=False)
    return {"frechet_distance": result[KEY_METRIC_FID]}


def _statistics(features: Tensor) -> dict[str, object]:
    return fid_features_to_statistics(features.to(torch.float64))
