"""A Hugging Face dataset on disk (Dataset.save_to_disk): one Image column and one ClassLabel column.

    dataset_info.json   features by column: {"_type": "Image"}, {"_type": "ClassLabel", "names": [...]}
    state.json          _data_files, in order: Arrow streams; an image is a struct {bytes, path}

Read with pyarrow by memory map, not with the `datasets` library: the format is two JSON files and Arrow streams, and
nothing of the user's is imported or unpickled. Images must be stored in the files (save_to_disk does so).
"""

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stx.errors import ConfigError, DataError
from stx.sources import base

INFO, STATE, SPLITS = "dataset_info.json", "state.json", "dataset_dict.json"


class Saved:
    """The images of one saved split, in order."""

    def __init__(self, path: Path) -> None:
        features = _json(path, INFO).get("features") or {}
        self._files = [path / str(entry["filename"]) for entry in _json(path, STATE)["_data_files"]]
        image, label = _column(features, "Image", where=path), _column(features, "ClassLabel", where=path)
        self.class_names = tuple(str(name) for name in features[label]["names"])
        columns = _columns(self._files, [image, label], where=path)
        self._images, found = columns[image], columns[label]
        if found.null_count:
            raise DataError(f"{base.counted(found.null_count, 'row has', 'rows have')} no {label}", where=str(path))
        self._labels = array("q", found.to_numpy().astype("int64").tobytes())
        base.check_classes(self._labels, self.class_names, where=path)

    @property
    def labels(self) -> Sequence[int]:
        """The class of every image."""
        return self._labels

    def name(self, index: int) -> str:
        """The row, and the file name it was made from where that is known."""
        try:
            path = self._images[index].as_py()["path"]
        except (KeyError, TypeError):
            path = None
        return f"row {index} ({base.shown(path)})" if path else f"row {index}"

    def read(self, index: int) -> bytes:
        """The bytes that are stored in one row."""
        value = self._images[index].as_py()
        if not value or value.get("bytes") is None:
            raise DataError("the image is not stored in the dataset's files (save it with save_to_disk)")
        content: bytes = value["bytes"]
        return content

    def files(self) -> Iterator[tuple[str, int]]:
        """Every Arrow file."""
        for path in self._files:
            yield path.name, path.stat().st_size


def open_source(path: Path, class_names: Sequence[str] | None) -> Saved:
    """List a saved dataset."""
    assert class_names is None, "a ClassLabel has names"
    return Saved(path)


def _json(path: Path, name: str) -> dict[str, Any]:
    if (path / SPLITS).is_file():
        splits = ", ".join(sorted(entry.name for entry in path.iterdir() if entry.is_dir()))
        raise DataError("holds several splits", where=str(path), hint=f"give the folder of one of them: {splits}")
    try:
        found: dict[str, Any] = json.loads((path / name).read_bytes())
    except OSError as error:
        hint = "a dataset on disk is what Dataset.save_to_disk(PATH) of the datasets library writes"
        raise DataError(f"no dataset on disk: {name}: {error.strerror}", where=str(path), hint=hint) from error
    except ValueError as error:
        raise DataError(f"{name} is not JSON: {error}", where=str(path)) from error
    return found


def _column(features: Mapping[str, Any], kind: str, *, where: Path) -> str:
    """The one column of a type."""
    found = [
        name for name, feature in features.items() if isinstance(feature, Mapping) and feature.get("_type") == kind
    ]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} columns of type {kind} ({', '.join(found)})" if found else f"no column of type {kind}"
    hint = "keep one image and one label: dataset.select_columns([IMAGE, LABEL]).save_to_disk(PATH)"
    raise DataError(f"{what}; its columns: {', '.join(features)}", where=str(where), hint=hint)


def _columns(files: Sequence[Path], names: Sequence[str], *, where: Path) -> dict[str, Any]:
    """Columns over all files, without a copy."""
    try:
        import pyarrow
    except ImportError as error:
        what = "a Hugging Face dataset is read with the package pyarrow, which is not installed"
        raise ConfigError(what, where=str(where), hint="pip install 'stx[datasets]'") from error
    tables = []
    for path in files:
        try:
            tables.append(pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))).read_all())
        except (OSError, pyarrow.ArrowInvalid) as error:
            raise DataError(f"cannot be read as an Arrow file: {error}", where=str(path)) from error
    if not tables:
        raise DataError("the dataset has no data files", where=str(where))
    whole = pyarrow.concat_tables(tables)
    return {name: whole.column(name) for name in names}
