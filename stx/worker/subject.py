"""What an inspect stage looks at: the same images in the same noise, whatever the run and the milestone.

Probes are fitted to train images, whose moments the latents stage has, and judged on held-out ones, which are encoded
here and of which the first are pictured. Row i of a split has posterior noise and noise from Philox(seed; i, split).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stx.data import noise
from stx.data.latents import Latents, scaled
from stx.data.noise import Purpose
from stx.model import rows
from stx.model.sit import SiT
from stx.worker import sit_weights
from stx.worker.attempt import Attempt
from stx.worker.autoencoder import Autoencoder, load
from stx.worker.images import read_info, read_split

TRAIN, TEST = "train", "held_out"
DRAWS = {TRAIN: 0, TEST: 1}  # of the noise of each split


@dataclass(frozen=True)
class Rows:
    """Rows of a split as the networks see them: latents and noise (N, C, h, w), labels (N,); images (N, C, H, W) of the
    held-out ones.
    """

    latents: Tensor
    noise: Tensor
    labels: Tensor
    images: Tensor | None = None

    def first(self, count: int) -> "Rows":
        """The first `count`."""
        images = None if self.images is None else self.images[:count]
        return Rows(self.latents[:count], self.noise[:count], self.labels[:count], images)


@dataclass(frozen=True)
class Subject:
    """What all parts of the stage look at: the same images, in the same noise, with the same decoder and teacher."""

    autoencoder: Autoencoder
    teacher: SiT | None
    train: Rows
    held_out: Rows
    class_names: Sequence[str]


def balanced_rows(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """`count` rows, classes in turn: the first row of each class, then the second of each, while it has one."""
    by_class = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[by_class], labels[by_class])
    turns = np.empty(len(labels), dtype=np.int64)
    turns[by_class] = np.arange(len(labels)) - starts
    return np.lexsort((labels, turns))[:count]


def subject_of(attempt: Attempt) -> Subject:
    """The rows that are chosen, and what they are shown to besides the run."""
    science = attempt.science
    autoencoder = load(attempt.input("autoencoder").payload)
    teacher = None
    if "teacher" in attempt.inputs:
        teacher = sit_weights.load_teacher(attempt.input("teacher").payload, shape=attempt.where["teacher_shape"])
    return Subject(
        autoencoder=autoencoder,
        teacher=teacher,
        train=_train_rows(attempt, autoencoder, count=science["probe"]["num_train"]),
        held_out=_held_out_rows(attempt, autoencoder, count=max(science["num_images"], science["probe"]["num_test"])),
        class_names=read_info(attempt.input("images")).class_names,
    )


def _train_rows(attempt: Attempt, autoencoder: Autoencoder, *, count: int) -> Rows:
    latents = Latents(attempt.input("latents").payload)
    chosen = balanced_rows(latents.labels, count)
    moments = torch.from_numpy(np.concatenate(latents.moments(chosen), axis=1))
    return _rows(attempt, autoencoder, moments, split=TRAIN, chosen=chosen, labels=latents.labels[chosen])


def _held_out_rows(attempt: Attempt, autoencoder: Autoencoder, *, count: int) -> Rows:
    split = read_split(attempt.input("images"), TEST)
    chosen = balanced_rows(split.labels.numpy(), count)
    images = split.images[chosen]
    moments = rows.chunked(autoencoder.encode, images, batch=attempt.science["batch"])
    labels = split.labels.numpy()[chosen]
    return _rows(attempt, autoencoder, moments, split=TEST, chosen=chosen, labels=labels, images=images)


def _rows(
    attempt: Attempt,
    autoencoder: Autoencoder,
    moments: Tensor,
    *,
    split: str,
    chosen: NDArray[np.int64],
    labels: NDArray[np.int64],
    images: Tensor | None = None,
) -> Rows:
    mean, std = moments.chunk(2, dim=1)
    drawn = noise.normal_pairs(
        attempt.science["seed"], Purpose.INSPECT_NOISE, chosen, count=mean[0].numel(), draw=DRAWS[split]
    )
    posterior_noise, made = (torch.from_numpy(slot).reshape(mean.shape) for slot in drawn)
    latents = scaled(mean, std, posterior_noise, scale=autoencoder.scale, shift=autoencoder.shift)
    return Rows(latents, made, torch.from_numpy(labels), images)
