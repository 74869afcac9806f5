"""The images stage: a source of real images becomes shards of PNG files and labels, split into train and held_out."""

from typing import NamedTuple

import torch
from torch import Tensor

from stx import records
from stx.data import images as data
from stx.paths import IMAGES_INFO
from stx.worker import publish
from stx.worker.attempt import Attempt, InputPath
from stx.worker.progress import Progress, conclude

SHARD = 1000
SPLITS = ("train", "held_out")


class Split(NamedTuple):
    """uint8 images (N, C, H, W) and int64 labels (N,)."""

    images: Tensor
    labels: Tensor


def run(attempt: Attempt) -> None:
    """Fetch, split, publish."""
    science = attempt.science
    attempt.heart.beat("start")
    source = data.source_images(science["source"], resolution=science["resolution"])
    parts = data.split(source.labels, held_out=science["held_out"], seed=science["seed"])
    progress = Progress(attempt, total=len(source.labels))
    payload = attempt.stage.payload
    payload.mkdir(exist_ok=True)
    for name, rows in zip(SPLITS, parts, strict=True):
        data.publish_images(payload, name, images=source.images[rows], labels=source.labels[rows], shard=SHARD)
        progress.advance(len(rows))
    info = data.ImagesInfo(
        resolution=science["resolution"],
        channels=source.images.shape[-1],
        num_classes=len(source.class_names),
        class_names=source.class_names,
        counts={name: len(rows) for name, rows in zip(SPLITS, parts, strict=True)},
    )
    publish.publish_json(payload / IMAGES_INFO, info.dump())
    conclude(progress, splits=SPLITS)


def read_info(source: InputPath) -> data.ImagesInfo:
    """What an images stage says of itself."""
    return data.ImagesInfo.parse(records.read(source.payload / IMAGES_INFO))


def read_split(source: InputPath, name: str) -> Split:
    """One split of an images stage, verified."""
    found = data.read_images(source.payload, name)
    images = torch.from_numpy(found.images).permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.from_numpy(found.labels))
