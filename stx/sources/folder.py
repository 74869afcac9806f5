"""A tree of class folders: PATH/<class>/<image>. Classes are numbered in the order of their sorted names.

Hidden files (and what desktops leave behind) are passed over, and so are loose files beside the class folders that are
no images. Everything else that is not an image in a class folder is an error with its name: nothing is left out
silently.
"""

import errno
import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobs import files
from stx.errors import DataError
from stx.sources import base

_HINT = "images lie one level deep: PATH/<class>/<image>"


class Folder:
    """The images below one folder, class by class, sorted by name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.class_names = tuple(_classes(path))
        self._labels = array("l")
        self._names: list[str] = []
        foreign: list[str] = []
        for label, class_name in enumerate(self.class_names):
            names, others = _images(path / class_name)
            self._names += names
            self._labels.extend([label] * len(names))
            foreign += [f"{class_name}/{other}" for other in others]
        if foreign:
            count = base.counted(len(foreign), "entry of a class folder is", "entries of class folders are")
            what = f"{count} no image:\n{base.listed(foreign)}"
            raise DataError(what, where=str(path), hint=f"{_HINT}; remove them ({', '.join(base.EXTENSIONS)} are read)")
        base.check_classes(self._labels, self.class_names, where=path)

    @property
    def labels(self) -> Sequence[int]:
        """The class of every image."""
        return self._labels

    def name(self, index: int) -> str:
        """<class>/<image>."""
        return base.shown(self._relative(index))

    def read(self, index: int) -> bytes:
        """The bytes of one file."""
        path = self._path / self._relative(index)
        data = files.read(path.resolve(), limit=base.IMAGE_BYTES)
        if data is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
        return data

    def files(self) -> Iterator[tuple[str, int]]:
        """Every image."""
        for index in range(len(self._names)):
            relative = self._relative(index)
            try:
                yield relative, (self._path / relative).stat().st_size
            except OSError as error:
                raise DataError(f"cannot be read: {error.strerror}", where=str(self._path / relative)) from error

    def _relative(self, index: int) -> str:
        return f"{self.class_names[self._labels[index]]}/{self._names[index]}"


def open_source(path: Path, class_names: Sequence[str] | None) -> Folder:
    """List a folder."""
    assert class_names is None, "class folders have names"
    return Folder(path)


def _classes(path: Path) -> list[str]:
    entries = _entries(path)
    loose = [entry.name for entry in entries if not entry.is_dir() and base.is_image(entry.name)]
    if loose:
        what = f"{base.counted(len(loose), 'image lies', 'images lie')} in no class folder:\n{base.listed(loose)}"
        raise DataError(what, where=str(path), hint=_HINT)
    found = [entry.name for entry in entries if entry.is_dir()]
    if not found:
        raise DataError("holds no class folders", where=str(path), hint=_HINT)
    for name in found:
        if base.shown(name) != name:
            raise DataError(f"the class folder {base.shown(name)} has a name that is not UTF-8", where=str(path))
    return found


def _images(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the images, and of what is none."""
    entries = _entries(folder)
    images = [entry.name for entry in entries if base.is_image(entry.name) and not entry.is_dir()]
    chosen = set(images)
    return images, [entry.name for entry in entries if entry.name not in chosen]


def _entries(folder: Path) -> "list[os.DirEntry[str]]":
    """What is in a folder, sorted by name, without hidden files."""
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not base.is_hidden(entry.name)]
    except OSError as error:
        raise DataError(f"cannot be read as a folder: {error.strerror}", where=str(folder)) from error
    return sorted(found, key=lambda entry: entry.name)
