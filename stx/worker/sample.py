"""The sample stage of one run: images from its milestones, as uint8 arrays. It grows: one part per milestone, made when
that milestone is there.

    parts/<images>/samples-%05d.npy   uint8 (batch, H, W, C), one chunk a file: a published one is not made again
                   labels.npy         int64 (num_samples,)

Sample j starts from Philox(seed, j), whatever run, milestone or guidance: grids of several series show the same noise.
Its label is j % num_classes (balanced), or uniform over the classes from Philox(seed, j) (random); its noise in step i
of a stochastic solver is that of Philox(seed, j, i). The solver's arithmetic is fp32 on the network's side; every chunk
is made whole, the last one cut. Chunks are shared among the ranks.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stx.data import noise
from stx.data.noise import Purpose
from stx.data.shards import npy_bytes
from stx.flow.guidance import guided_velocity
from stx.flow.solvers import ODE_SOLVERS, sde
from stx.model.sit import SiT
from stx.paths import LABELS, samples_file
from stx.times import LAST_STEP
from stx.worker import publish, sit_weights
from stx.worker.attempt import Attempt
from stx.worker.autoencoder import Autoencoder, load
from stx.worker.device import device
from stx.worker.progress import Progress, conclude_part
from stx.worker.units import Unit, cut, share


def run(attempt: Attempt) -> None:
    """Make every part that is wanted, whose milestone is there, and that is not; look again after each."""
    autoencoder = load(attempt.input("autoencoder").payload)
    made: set[int] = set()  # a rank above 0 does not wait for the part to be concluded
    while todo := [images for images in ready_parts(attempt, upstream="run") if images not in made]:
        attempt.leave_if_asked()
        _make_part(attempt, images=todo[0], autoencoder=autoencoder)
        made.add(todo[0])


def ready_parts(attempt: Attempt, *, upstream: str) -> list[int]:
    """Images-seen counts, ascending, that are wanted, finished upstream, and not yet here."""
    source = attempt.input(upstream)
    finished = set(source.stage.parts(source.kind))
    return sorted((attempt.wanted() & finished) - set(attempt.stage.parts(attempt.kind)))


def labels_of(science: Mapping[str, Any], numbers: NDArray[np.int64], *, num_classes: int) -> Tensor:
    """The labels (R,) of the samples with these numbers."""
    if science["labels"] == "balanced":
        return torch.from_numpy(numbers % num_classes)
    assert science["labels"] == "random", science["labels"]
    words = noise.words(science["seed"], Purpose.SAMPLE_LABELS, numbers, count=1)[:, 0].astype(np.int64)
    return torch.from_numpy(words * num_classes >> 32)


def sampled(
    model: SiT,
    numbers: NDArray[np.int64],
    labels: Tensor,
    *,
    seed: int,
    sampler: Mapping[str, Any],
    interpolant: str,
) -> Tensor:
    """Latents (R, C, H, W) of the samples with these numbers (R,), of these labels (R,)."""
    shape = (len(numbers), model.in_channels, model.input_size, model.input_size)

    def normals(purpose: Purpose, *, draw: int = 0) -> Tensor:
        drawn = noise.normals(seed, purpose, numbers, count=math.prod(shape[1:]), draw=draw)
        return torch.from_numpy(drawn).reshape(shape).to(device())

    velocity_at = guided_velocity(
        lambda noisy, t, labels: model(noisy, t, labels).velocity,
        labels.to(device()),
        null_label=model.null_label,
        guidance=sampler["guidance"],
        interval=tuple(sampler["interval"]),
    )
    start, steps = normals(Purpose.SAMPLE_NOISE), sampler["steps"]
    if sampler["solver"] != "sde":
        return ODE_SOLVERS[sampler["solver"]](velocity_at, start, steps=steps)
    return sde(
        velocity_at,
        start,
        steps=steps,
        last_step=sampler.get("last_step", LAST_STEP),
        interpolant=interpolant,
        noise_of=lambda step: normals(Purpose.SAMPLE_STEPS, draw=step),
    )


def _make_part(attempt: Attempt, *, images: int, autoencoder: Autoencoder) -> None:
    science, shape = attempt.science, attempt.where["shape"]
    source, count = attempt.input("run").stage.part("train", images), science["num_samples"]
    model = sit_weights.milestone(source, section=attempt.where["section"], shape=shape)
    folder = attempt.stage.part(attempt.kind, images).path
    labels = labels_of(science, np.arange(count), num_classes=shape["num_classes"])
    publish.publish_bytes(folder / LABELS, npy_bytes(labels.numpy()))
    progress = Progress(attempt, total=count, phase="sample")
    for unit in share(progress, cut(count, size=science["batch"], path=lambda number: folder / samples_file(number))):
        pixels = _chunk(attempt, model, unit, autoencoder=autoencoder).permute(0, 2, 3, 1)
        publish.publish_bytes(unit.path, npy_bytes(np.ascontiguousarray(pixels.numpy())))
    if attempt.rank == 0:
        conclude_part(progress, images=images)


def _chunk(attempt: Attempt, model: SiT, unit: Unit, *, autoencoder: Autoencoder) -> Tensor:
    """Pixels of one chunk, made whole and cut."""
    science = attempt.science
    numbers = np.arange(unit.first, unit.first + science["batch"])
    latents = sampled(
        model,
        numbers,
        labels_of(science, numbers, num_classes=model.null_label),
        seed=science["seed"],
        sampler=science["sampler"],
        interpolant=attempt.where["interpolant"],
    )
    return autoencoder.decode(latents)[: unit.last - unit.first]
