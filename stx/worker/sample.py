"""The sample stage of one run: images from its milestones, as uint8 arrays. It grows: one part per milestone, made when
that milestone is there.

    parts/<images>/samples-%05d.npy   uint8 (batch, H, W, C), one chunk a file: a published one is not made again
                   labels.npy         int64 (num_samples,): sample j has label j % num_classes

Sample j starts from Philox(seed, j), whatever run, milestone or guidance: grids of several series show the same noise.
The solver's arithmetic is fp32 on the network's side; every chunk is made whole, the last one cut.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stx.data import noise
from stx.data.noise import Purpose
from stx.data.shards import npy_bytes
from stx.flow.guidance import guided_velocity
from stx.flow.solvers import SOLVERS
from stx.model import rows
from stx.model.sit import SiT
from stx.paths import LABELS, samples_file
from stx.worker import publish, sit_weights
from stx.worker.attempt import Attempt
from stx.worker.autoencoder import Autoencoder, load
from stx.worker.device import device
from stx.worker.progress import Progress, conclude_part


def run(attempt: Attempt) -> None:
    """Make every part that is wanted, whose milestone is there, and that is not; look again after each."""
    autoencoder = load(attempt.input("autoencoder").payload)
    while todo := ready_parts(attempt, upstream="run"):
        attempt.leave_if_asked()
        _make_part(attempt, images=todo[0], autoencoder=autoencoder)


def ready_parts(attempt: Attempt, *, upstream: str) -> list[int]:
    """Images-seen counts, ascending, that are wanted, finished upstream, and not yet here."""
    source = attempt.input(upstream)
    finished = set(source.stage.parts(source.kind))
    return sorted((attempt.wanted() & finished) - set(attempt.stage.parts(attempt.kind)))


def balanced_labels(first: int, last: int, *, num_classes: int) -> Tensor:
    """Labels of samples first..last-1: classes in turn."""
    return torch.arange(first, last) % num_classes


def _make_part(attempt: Attempt, *, images: int, autoencoder: Autoencoder) -> None:
    science, shape = attempt.science, attempt.where["shape"]
    source = attempt.input("run").stage.part("train", images)
    model = sit_weights.milestone(source, weights=science["weights"], shape=shape)
    folder = attempt.stage.part(attempt.kind, images).path
    progress = Progress(attempt, total=science["num_samples"])
    labels = balanced_labels(0, science["num_samples"], num_classes=shape["num_classes"])
    publish.publish_bytes(folder / LABELS, npy_bytes(labels.numpy()))
    for number, (first, last) in enumerate(rows.spans(science["num_samples"], batch=science["batch"])):
        path = folder / samples_file(number)
        if path.exists():
            progress.skip(last - first)
            continue
        latents = _sample(model, first=first, science=science)
        pixels = autoencoder.decode(latents)[: last - first].permute(0, 2, 3, 1)
        publish.publish_bytes(path, npy_bytes(np.ascontiguousarray(pixels.numpy())))
        progress.advance(last - first)
    conclude_part(progress, images=images)


def _sample(model: SiT, *, first: int, science: Mapping[str, Any]) -> Tensor:
    """Latents of one whole chunk."""
    sampler, numbers = science["sampler"], np.arange(first, first + science["batch"])
    shape = (model.in_channels, model.input_size, model.input_size)
    drawn = noise.normals(science["seed"], Purpose.SAMPLE_NOISE, numbers, count=int(np.prod(shape)))
    start = torch.from_numpy(drawn).reshape(len(numbers), *shape).to(device())
    velocity_at = guided_velocity(
        lambda noisy, t, labels: model(noisy, t, labels).velocity,
        balanced_labels(first, first + len(numbers), num_classes=model.null_label).to(device()),
        null_label=model.null_label,
        guidance=sampler["guidance"],
        interval=tuple(sampler["interval"]),
    )
    with torch.no_grad():
        return SOLVERS[sampler["solver"]](velocity_at, start, steps=sampler["steps"])
