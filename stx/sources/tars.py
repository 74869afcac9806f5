"""WebDataset tars of images: members KEY.jpg (jpeg, png, webp) and KEY.cls, other members are passed over.

PATH is a tar, a folder of tars, a brace pattern (train-{000..003}.tar) or a glob. Tars are taken in the order of the
pattern, sorted below it; images in the order of the tar. KEY.cls holds a number from 0 (its class is named by
`class_names`, else by the number) or a name (then classes are numbered in the order of their sorted names).
Compressed tars cannot be read at a position and are refused.
"""

import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from braceexpand import braceexpand

from jobs import files
from stx import tar
from stx.errors import DataError
from stx.sources import base

LABEL = "cls"
LABEL_BYTES = 4096  # a number, or the name of a class


class _Found(NamedTuple):
    """One image: its key, where its bytes lie, and what its label says."""

    key: str
    start: int
    size: int
    label: str


class Tars:
    """The images of some tars, in order."""

    def __init__(self, paths: Sequence[Path], class_names: Sequence[str] | None, *, where: Path) -> None:
        self._paths = list(paths)
        self._names: list[str] = []
        self._places = array("q")  # tar, start, size of every image
        words: list[str] = []
        for number, path in enumerate(self._paths):
            for found in _scan(path):
                self._names.append(found.key)
                self._places.extend((number, found.start, found.size))
                words.append(found.label)
        self._labels, self.class_names = _classes(words, class_names, where=where)
        base.check_classes(self._labels, self.class_names, where=where)

    @property
    def labels(self) -> Sequence[int]:
        """The class of every image."""
        return self._labels

    def name(self, index: int) -> str:
        """<tar>: <key>."""
        return base.shown(f"{self._paths[self._places[3 * index]].name}: {self._names[index]}")

    def read(self, index: int) -> bytes:
        """The bytes of one member."""
        number, start, size = self._places[3 * index : 3 * index + 3]
        with self._paths[number].open("rb") as stream:
            stream.seek(start)
            return stream.read(size)

    def files(self) -> Iterator[tuple[str, int]]:
        """Every tar."""
        for path in self._paths:
            yield path.name, path.stat().st_size


def open_source(path: Path, class_names: Sequence[str] | None) -> Tars:
    """List the tars of a pattern."""
    return Tars(_paths(path), class_names, where=path)


def _paths(pattern: Path) -> list[Path]:
    if pattern.is_dir():
        found = sorted(path for path in pattern.glob("*.tar") if not base.is_hidden(path.name))
    else:
        found = [path for text in _expanded(pattern) for path in _matches(text)]
    if not found:
        raise DataError("no tar matches", where=str(pattern), hint="a tar, a folder of tars, {000..003} or a glob")
    missing = [str(path) for path in found if not path.is_file()]
    if missing:
        what = f"{len(missing)} of {len(found)} tars are missing:\n{base.listed(missing)}"
        raise DataError(what, where=str(pattern))
    return found


def _expanded(pattern: Path) -> list[str]:
    try:
        return list(braceexpand(str(pattern)))
    except ValueError as error:
        raise DataError(f"braces that do not match: {error}", where=str(pattern)) from error


def _matches(text: str) -> list[Path]:
    path = Path(text)
    return sorted(path.parent.glob(path.name)) if any(character in path.name for character in "*?[") else [path]


def _scan(path: Path) -> Iterator[_Found]:
    """The images of one tar, in order."""
    images: dict[str, tar.Member] = {}
    labels: dict[str, str] = {}
    try:
        with files.opened(path.resolve()) as stream:
            size = os.fstat(stream.fileno()).st_size
            for member in tar.members(stream, size, where=str(path)):
                key, extension = _split(member)
                if extension in (LABEL, *base.EXTENSIONS) and (member.leaves or member.kind):
                    what = f"is {member.kind}" if member.kind else "leads out of the tar"
                    raise DataError(f"member {member.shown} {what}: refused", where=str(path))
                if extension == LABEL:
                    labels[key] = _label(stream, member, where=path)
                elif extension in base.EXTENSIONS and key in images:
                    raise DataError(f"sample {base.shown(key)} has two images", where=str(path))
                elif extension in base.EXTENSIONS:
                    images[key] = member
    except OSError as error:
        raise DataError(f"cannot be read as a tar: {error.strerror}", where=str(path), hint=tar.HINT) from error
    alone = [f"{key}: no {LABEL}" for key in images if key not in labels]
    alone += [f"{key}: no image" for key in labels if key not in images]
    if alone:
        raise DataError(
            f"{base.counted(len(alone), 'sample is', 'samples are')} no pair of image and label:\n{base.listed(alone)}",
            where=str(path),
        )
    return (_Found(key, member.start, member.size, labels[key]) for key, member in images.items())


def _label(stream: BinaryIO, member: tar.Member, *, where: Path) -> str:
    """What a .cls says."""
    if member.size > LABEL_BYTES:
        raise DataError(f"the label {member.shown} has {member.size:,} bytes", where=str(where))
    stream.seek(member.start)
    return stream.read(member.size).decode(errors="backslashreplace").strip()


def _split(member: tar.Member) -> tuple[str, str]:
    """Key and extension as WebDataset has them; no extension for what is passed over."""
    folder, slash, name = member.name.rpartition("/")
    if base.is_hidden(name):
        return member.name, ""
    stem, _, extension = name.partition(".")
    return folder + slash + stem, extension.lower()


def _classes(
    words: Sequence[str], class_names: Sequence[str] | None, *, where: Path
) -> tuple["array[int]", tuple[str, ...]]:
    """Labels as numbers, and the names of the classes."""
    if all(word.removeprefix("-").isdecimal() for word in words):
        numbers = [int(word) for word in words]
        num_classes = max(numbers, default=0) + 1
        if num_classes > len(words) > 0:
            what = (
                f"label {num_classes - 1} among {len(words)} images: labels count from 0, and every class has an image"
            )
            raise DataError(what, where=str(where))
        return array("l", numbers), tuple(class_names or map(str, range(num_classes)))
    if class_names:
        odd = next(word for word in words if not word.isdecimal())
        what = f'class_names name numbers, and a .{LABEL} says "{odd}"'
        raise DataError(what, where=str(where), hint="remove class_names: these labels are names themselves")
    names = tuple(sorted(set(words)))
    number_of = {name: number for number, name in enumerate(names)}
    return array("l", (number_of[word] for word in words)), names
