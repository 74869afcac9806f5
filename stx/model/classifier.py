"""A small convolutional classifier: the judge of generated images where no published extractor fits.

    conv 3x3 - GroupNorm - SiLU - 2x2 mean pool, per entry of `channels`
    4x4 adaptive mean pool - linear -> features - SiLU - linear -> logits

No batch statistics and no dropout: what it says of an image depends neither on the others of its batch, nor on train
or eval mode. Scores in its feature space are named after it; they are not FID.
"""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn

_GRID = 4
_GROUP_WIDTH = 4


class ClassifierOutput(NamedTuple):
    """(B, feature_width) and (B, num_classes)."""

    features: Tensor
    logits: Tensor


class Classifier(nn.Module):
    """Images (B, C, H, W) in [-1, 1] to features and logits."""

    def __init__(self, *, image_channels: int, channels: tuple[int, ...], feature_width: int, num_classes: int) -> None:
        super().__init__()
        widths = (image_channels, *channels)
        blocks = [_block(narrow, wide) for narrow, wide in itertools.pairwise(widths)]
        self.trunk = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(_GRID), nn.Flatten())
        self.features = nn.Linear(channels[-1] * _GRID**2, feature_width)
        self.head = nn.Sequential(nn.SiLU(), nn.Linear(feature_width, num_classes))

    def forward(self, images: Tensor) -> ClassifierOutput:
        """Features are taken before the last nonlinearity, where they are closest to normal."""
        features = self.features(self.trunk(images))
        return ClassifierOutput(features, self.head(features))


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """The share of rows whose largest logit is the label's."""
    return float((torch.argmax(logits, dim=1) == labels).double().mean())


def _block(narrow: int, wide: int) -> nn.Sequential:
    convolution = nn.Conv2d(narrow, wide, kernel_size=3, padding=1)
    return nn.Sequential(convolution, nn.GroupNorm(max(1, wide // _GROUP_WIDTH), wide), nn.SiLU(), nn.AvgPool2d(2))
