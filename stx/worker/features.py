"""The features stage: what the frozen teacher makes of `draws` fixed noisy versions of every image, so that many
students need not ask it again.

Draw k of sample i has posterior noise, t (inside the window only) and noise from Philox(seed, i, k): the train stage
makes the same ones and looks its rows up. Stored are f_u and the difference f_c - f_u, taken in fp32 before rounding,
so one cache serves every guidance. The teacher sees the true label. Chunks of `batch` rows run over samples x draws; a
shard holds `shard` samples, hence whole chunks, and is not made again once published. Ranks share the shards.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from stx.alignment.guided_teacher import teacher_features
from stx.data import features as data
from stx.data import shards
from stx.data.features import SPLIT
from stx.data.latents import Latents, scaled
from stx.flow.interpolant import noisy_at
from stx.model import rows
from stx.model.sit import SiT
from stx.times import Distribution
from stx.worker import publish, sit_weights
from stx.worker.attempt import Attempt
from stx.worker.device import device
from stx.worker.progress import Progress, conclude
from stx.worker.units import Unit, cut, share


class Chunk(NamedTuple):
    """What the teacher is shown: rows of one chunk, padded."""

    noisy: Tensor
    t: Tensor
    labels: Tensor


def run(attempt: Attempt) -> None:
    """Make the shards that are not there yet."""
    science, shape = attempt.science, attempt.where["shape"]
    teacher = sit_weights.load_teacher(attempt.input("teacher").payload, shape=shape)
    latents = Latents(attempt.input("latents").payload)
    count, draws = latents.num_samples, science["draws"]
    progress = Progress(attempt, total=count * draws)
    payload = attempt.stage.payload
    payload.mkdir(exist_ok=True)
    size, path = science["shard"] * draws, functools.partial(shards.shard_path, payload, SPLIT)
    units = cut(count * draws, size=size, path=path)
    for unit in share(progress, units):
        _make_shard(progress, unit, teacher=teacher, latents=latents)
    if attempt.rank == 0:
        shards.publish_index(payload, SPLIT, num_shards=len(units), beat=progress.beat)
        publish.publish_json(payload / data.RECORD, _info(attempt, count=count).dump())
        conclude(progress, splits=[SPLIT])


def _info(attempt: Attempt, *, count: int) -> data.FeaturesInfo:
    science, shape = attempt.science, attempt.where["shape"]
    return data.FeaturesInfo(
        draws=science["draws"],
        window=tuple(science["window"]),
        t_distribution=science["t_distribution"],
        cache_seed=science["seed"],
        tokens=(shape["input_size"] // shape["patch"]) ** 2,
        width=shape["width"],
        dtype=science["dtype"],
        teacher_block=science["teacher_block"],
        count=count,
        interpolant=attempt.where["interpolant"],
    )


def _make_shard(progress: Progress, unit: Unit, *, teacher: SiT, latents: Latents) -> None:
    """The rows of a unit are draws of samples: those of one sample follow each other."""
    science, interpolant = progress.attempt.science, progress.attempt.where["interpolant"]
    draws = science["draws"]
    samples, draw = np.divmod(np.arange(unit.first, unit.last), draws)
    unconditional, difference = [], []
    for begin, end in rows.spans(len(samples), batch=science["batch"]):
        progress.within(begin)
        chunk = _chunk(latents, samples[begin:end], draw[begin:end], science=science, interpolant=interpolant)
        found = teacher_features(teacher, *chunk, block=science["teacher_block"])
        unconditional.append(found.unconditional[: end - begin].cpu())
        difference.append(found.difference[: end - begin].cpu())
    per_sample = (len(samples) // draws, draws, -1, teacher.shape.width)
    data.publish_features(
        progress.attempt.stage.payload,
        unit.number,
        first=unit.first // draws,
        unconditional=torch.cat(unconditional).reshape(per_sample),
        difference=torch.cat(difference).reshape(per_sample),
        dtype=science["dtype"],
    )


def _chunk(latents: Latents, samples: np.ndarray, draw: np.ndarray, *, science: Any, interpolant: str) -> Chunk:
    info = latents.info
    shape = (info.channels, info.size, info.size)
    drawn = data.draw_features(
        science["seed"],
        samples,
        draw,
        shape=shape,
        window=tuple(science["window"]),
        distribution=Distribution(science["t_distribution"], interpolant),
    )
    mean, std = latents.moments(samples)
    clean = scaled(mean, std, drawn.posterior_noise, scale=info.scale, shift=info.shift)
    made = (clean, drawn.noise, drawn.t, latents.labels[samples])
    clean, noise, t, labels = (
        rows.padded(torch.from_numpy(np.ascontiguousarray(value)), batch=science["batch"]).to(device())
        for value in made
    )
    return Chunk(noisy_at(clean, noise, t, interpolant=interpolant), t, labels)
