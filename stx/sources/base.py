"""What the forms of sources share: the protocol, the refusals that all of them need, and the fingerprint."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from stx.errors import DataError

EXTENSIONS = ("jpg", "jpeg", "png", "webp")
SHOWN = 10
IMAGE_BYTES = 1 << 30  # of one encoded image


class ImageSource(Protocol):
    """Images with labels, in an order that does not depend on the file system. `read` may be called from threads."""

    class_names: tuple[str, ...]

    @property
    def labels(self) -> Sequence[int]:
        """The class of every image."""

    def name(self, index: int) -> str:
        """What an error calls image `index`."""

    def read(self, index: int) -> bytes:
        """The encoded image; OSError or DataError if it cannot be read."""

    def files(self) -> Iterable[tuple[str, int]]:
        """Name and size of every file the images lie in."""


def fingerprint(source: ImageSource) -> dict[str, Any]:
    """What a source looked like: the number of its files and a digest of their names and sizes."""
    files = sorted(source.files())
    listing = "\n".join(f"{name} {size}" for name, size in files).encode(errors="surrogateescape")
    return {"files": len(files), "names_and_sizes": hashlib.sha256(listing).hexdigest()}


def counts_of(source: ImageSource) -> list[int]:
    """Images of each class."""
    counts = [0] * len(source.class_names)
    for label in source.labels:
        counts[label] += 1
    return counts


def content(class_names: Sequence[str], num_images: int) -> dict[str, Any]:
    """What tells two sources apart at a glance: the number of images and a digest of the classes' names."""
    return {"num_images": num_images, "classes": hashlib.sha256("\n".join(class_names).encode()).hexdigest()[:12]}


def is_image(name: str) -> bool:
    """Whether a file is taken for an image, by its extension; what it really is shows when it is decoded."""
    return name.rpartition(".")[2].lower() in EXTENSIONS


def is_hidden(name: str) -> bool:
    """Files that desktops and archivers leave behind."""
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini", "__macosx")


def shown(name: str) -> str:
    """A file name as text that can be printed, whatever bytes it is made of."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def counted(number: int, one: str, many: str) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {one if number == 1 else many}"


def listed(names: Sequence[str]) -> str:
    """The first names of many, one a line, and how many more there are."""
    lines = [f"    {shown(name)}" for name in names[:SHOWN]]
    more = len(names) - SHOWN
    return "\n".join([*lines, f"    ... and {more} more"] if more > 0 else lines)


def check_classes(labels: Sequence[int], class_names: Sequence[str], *, where: Path) -> None:
    """At least two classes, each with an image, and no image of another one."""
    if not len(labels):
        raise DataError("no images here", where=str(where), hint=f"known: {', '.join(EXTENSIONS)}")
    if len(class_names) < 2:
        raise DataError(
            f"one class only ({shown(class_names[0])}): a model is conditioned on two or more", where=str(where)
        )
    present = set(labels)
    missing = [name for number, name in enumerate(class_names) if number not in present]
    if missing:
        raise DataError(
            f"{counted(len(missing), 'class has', 'classes have')} no image, of {len(class_names)}:\n{listed(missing)}",
            where=str(where),
            hint="labels count from 0; remove empty classes",
        )
    if min(present) < 0 or max(present) >= len(class_names):
        foreign = min(present - set(range(len(class_names))))
        raise DataError(f"label {foreign} is none of the {len(class_names)} classes", where=str(where))
