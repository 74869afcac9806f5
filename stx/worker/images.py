"""The images stage: a source of real images becomes shards of PNG files and labels, split into train and held_out.

A shard that is published is complete and is not made again. Images that cannot be decoded end the stage once all have
been tried, in one error that lists them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stx import named, records
from stx.data import images as data
from stx.data import shards
from stx.data.images import RawImages
from stx.errors import DataError
from stx.paths import IMAGES_INFO
from stx.sources import base as sources
from stx.sources.base import ImageSource
from stx.worker import publish
from stx.worker.attempt import Attempt, InputPath, check_fingerprint
from stx.worker.progress import Progress, conclude

SHARD = 1000
SHARD_PIXELS = SHARD * 256**2  # shards of larger images hold fewer
SPLITS = ("train", "held_out")
WHOLE_BYTES = 512 << 20  # a split of at most as many pixel bytes is decoded at once
RGB = 3


class LazyImages:
    """uint8 images (N, C, H, W) that are decoded when asked for, by row, slice, or any list of rows."""

    def __init__(self, stored: data.StoredImages) -> None:
        self._stored = stored
        count, height, width, channels = stored.shape
        self.shape = torch.Size((count, channels, height, width))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: "int | slice | Sequence[int] | np.ndarray | Tensor") -> Tensor:
        if isinstance(rows, int):
            return self[[range(len(self))[rows]]][0]
        chosen = range(*rows.indices(len(self))) if isinstance(rows, slice) else [int(row) for row in rows]
        return torch.from_numpy(self._stored.gather(chosen)).permute(0, 3, 1, 2).contiguous()


class Split(NamedTuple):
    """uint8 images (N, C, H, W), a tensor or (of a large split) decoded when asked for, and int64 labels (N,)."""

    images: Tensor | LazyImages
    labels: Tensor


def run(attempt: Attempt) -> None:
    """Look at the source, split, decode and publish shard by shard."""
    science = attempt.science
    attempt.heart.beat("start")
    source = None if isinstance(science["source"], str) else _open(attempt)
    raw = _raw(attempt, source)
    kept = data.limited(raw.labels, limit=science.get("limit"))
    halves = data.split(raw.labels[kept], held_out=science["held_out"], seed=science["seed"])
    parts = {name: kept[rows] for name, rows in zip(SPLITS, halves, strict=True)}
    progress = Progress(attempt, total=len(kept))
    attempt.stage.payload.mkdir(exist_ok=True)
    broken = [found for name, rows in parts.items() for found in _publish_split(progress, name, raw=raw, rows=rows)]
    if broken:
        assert source is not None, "the digits can be decoded"
        raise _broken(attempt, source, broken)
    info = data.ImagesInfo(
        resolution=science["resolution"],
        channels=raw.images.shape[-1],
        num_classes=len(raw.class_names),
        class_names=raw.class_names,
        counts={name: len(rows) for name, rows in parts.items()},
    )
    publish.publish_json(attempt.stage.payload / IMAGES_INFO, info.dump())
    found = sources.content(raw.class_names, len(raw.labels))
    conclude(progress, splits=SPLITS, info={"found": found})


def _open(attempt: Attempt) -> ImageSource:
    """The user's source, as it was when the stage first ran, and as the file declares it."""
    science, where = attempt.science["source"], attempt.where["source"]
    path = Path(where["path"])
    names = science.get("class_names")
    source: ImageSource = named.load("stx.sources", science["form"]).open_source(path, names and tuple(names))
    for option, count in (("num_images", len(source.labels)), ("num_classes", len(source.class_names))):
        if where.get(option, count) != count:
            raise DataError(f"{option} = {where[option]} was declared, and there are {count}", where=str(path))
    check_fingerprint(attempt, name="source", where=path, seen=sources.fingerprint(source))
    return source


def _raw(attempt: Attempt, source: ImageSource | None) -> RawImages:
    science = attempt.science
    if source is None:
        return data.mnist5k(resolution=science["resolution"])
    return data.user_images(source, resolution=science["resolution"], channels=science.get("channels", RGB))


def _publish_split(progress: Progress, name: str, *, raw: RawImages, rows: np.ndarray) -> list[tuple[int, str]]:
    """Publish the shards of a split and its index. What is broken: index in the source, and why."""
    attempt = progress.attempt
    payload, chosen, labels = attempt.stage.payload, data.Chosen(raw.images, rows), raw.labels[rows]

    def tick() -> None:
        attempt.heart.beat("step", images=progress.found + progress.made, total=progress.total)
        attempt.leave_if_asked(images=progress.found + progress.made)

    broken: list[data.Broken] = []
    spans = data.shard_spans(len(rows), shard=min(SHARD, max(1, SHARD_PIXELS // attempt.science["resolution"] ** 2)))
    for number, span in enumerate(spans):
        if shards.shard_path(payload, name, number).exists():
            progress.skip(span[1] - span[0])
            continue
        broken += data.publish_shard(
            payload, name, number, images=chosen, labels=labels, span=span, threads=attempt.threads, tick=tick
        )
        progress.advance(span[1] - span[0])
    if not broken:
        shards.publish_index(payload, name, num_shards=len(spans), beat=progress.beat)
    return [(int(rows[found.row]), found.reason) for found in broken]


def _broken(attempt: Attempt, source: ImageSource, broken: list[tuple[int, str]]) -> DataError:
    lines = [f"{source.name(index)}: {reason}" for index, reason in sorted(broken)]
    return DataError(
        f"{len(lines)} of {len(source.labels)} images cannot be used:\n{sources.listed(lines)}",
        where=attempt.where["source"]["path"],
        hint="repair or remove them, and give the source a new `version:` (it is another set of images then)",
    )


def read_info(source: InputPath) -> data.ImagesInfo:
    """What an images stage says of itself."""
    return records.load(data.ImagesInfo, source.payload / IMAGES_INFO)


def read_split(source: InputPath, name: str) -> Split:
    """One split of an images stage, verified: a small one at once, a large one image by image when it is read."""
    info = read_info(source)
    if info.counts[name] * info.resolution**2 * info.channels > WHOLE_BYTES:
        stored = data.StoredImages(source.payload, name, threads=torch.get_num_threads())
        return Split(LazyImages(stored), torch.from_numpy(stored.labels))
    found = data.read_images(source.payload, name)
    images = torch.from_numpy(found.images).permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.from_numpy(found.labels))
