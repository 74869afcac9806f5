"""The latents stage: moments (mean and STD) of the train split, as WebDataset shards; with them travel shift, scale and
the autoencoder's digest.

With `flips`, row N + i is image i mirrored left to right, of N train images: twice the rows, of the same classes.
Shards hold whole chunks of `batch` rows and are shared among the ranks; one that is published is not made again. Images
are read a chunk at a time.
"""

import functools

import torch
from torch import Tensor

from stx.data import shards
from stx.data.latents import RECORD, SPLIT, LatentsInfo, publish_latents
from stx.model import rows
from stx.model.autoencoder import latent_size
from stx.worker import publish
from stx.worker.attempt import Attempt
from stx.worker.autoencoder import Autoencoder, load
from stx.worker.images import Split, read_info, read_split
from stx.worker.progress import Progress, conclude
from stx.worker.units import Unit, cut, share


def run(attempt: Attempt) -> None:
    """Encode the train split, shard by shard."""
    science, encoder = attempt.science, attempt.input("autoencoder")
    train, autoencoder = read_split(attempt.input("images"), SPLIT), load(encoder.payload)
    count = len(train.labels) * (2 if science.get("flips") else 1)
    payload = attempt.stage.payload
    payload.mkdir(exist_ok=True)
    units = cut(count, size=science["shard"], path=functools.partial(shards.shard_path, payload, SPLIT))
    progress = Progress(attempt, total=count)
    for unit in share(progress, units):
        _make_shard(progress, unit, train=train, autoencoder=autoencoder)
    if attempt.rank == 0:
        shards.publish_index(payload, SPLIT, num_shards=len(units), beat=progress.beat)
        publish.publish_json(payload / RECORD, _info(attempt, autoencoder, count=count).dump())
        conclude(progress, splits=[SPLIT])


def _make_shard(progress: Progress, unit: Unit, *, train: Split, autoencoder: Autoencoder) -> None:
    science, moments = progress.attempt.science, []
    for first, last in rows.spans(unit.last - unit.first, batch=science["batch"]):
        progress.within(first)
        images = pictures(train, unit.first + first, unit.first + last)
        moments.append(rows.chunked(autoencoder.encode, images, batch=science["batch"]))
    mean, std = torch.cat(moments).chunk(2, dim=1)
    publish_latents(
        progress.attempt.stage.payload,
        unit.number,
        first=unit.first,
        mean=mean.numpy(),
        std=std.numpy(),
        labels=train.labels[torch.arange(unit.first, unit.last) % len(train.labels)].numpy(),
        dtype=science["dtype"],
    )


def pictures(train: Split, first: int, last: int) -> Tensor:
    """Rows first .. last - 1: uint8 (R, C, H, W), the images in their order and then, mirrored, once more."""
    count = len(train.labels)
    if last <= count:
        return train.images[first:last]  # as it lies in memory, on which the encoder's last bits depend
    mirrored = train.images[max(first - count, 0) : last - count].flip(-1)
    return torch.cat([train.images[first:count], mirrored])


def _info(attempt: Attempt, autoencoder: Autoencoder, *, count: int) -> LatentsInfo:
    images = read_info(attempt.input("images"))
    return LatentsInfo(
        channels=autoencoder.latent_shape[0],
        # of these images: the autoencoder may have learned on others, of another resolution
        size=latent_size(autoencoder.built_with | {"sample_size": images.resolution}),
        num_classes=images.num_classes,
        class_names=images.class_names,
        scale=autoencoder.scale,
        shift=autoencoder.shift,
        autoencoder=attempt.input("autoencoder").artifact().digest,
        count=count,
        dtype=attempt.science["dtype"],
    )
