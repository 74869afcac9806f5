"""A Hugging Face dataset on disk (Dataset.save_to_disk): one Image column and one ClassLabel column.

    dataset_info.json   features by column: {"_type": "Image"}, {"_type": "ClassLabel", "names": [...]}
    state.json          _data_files, in order: Arrow streams; an image is a struct {bytes, path}

Read with pyarrow by memory map, not with the `datasets` library: the format is two JSON files and Arrow streams, and
nothing of the user's is imported or unpickled. Images must be stored in the files (save_to_disk does so).
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs import files, typed
from stx import records
from stx.errors import ConfigError, DataError, StoreError, install
from stx.sources import base

INFO, STATE, SPLITS = "dataset_info.json", "state.json", "dataset_dict.json"


class Saved:
    """The images of one saved split, in order."""

    def __init__(self, path: Path) -> None:
        info, state = _json(path, INFO), _json(path, STATE)
        with records.understood(path / INFO):
            features = typed.matching(Mapping[str, Any], info.get("features") or {})
        with records.understood(path / STATE):
            self._files = [path / _name(entry["filename"]) for entry in state["_data_files"]]
        image, label = _column(features, "Image", where=path), _column(features, "ClassLabel", where=path)
        with records.understood(path / INFO):
            self.class_names = typed.matching(tuple[str, ...], features[label]["names"])
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
    hint = "a dataset on disk is what Dataset.save_to_disk(PATH) of the datasets library writes"
    try:
        found = records.find((path / name).resolve(), limit=records.ARTIFACT_BYTES)
    except (OSError, StoreError) as error:
        reason = error.what if isinstance(error, StoreError) else error.strerror
        raise DataError(f"no dataset on disk: {name}: {reason}", where=str(path), hint=hint) from error
    if found is None:
        raise DataError(f"no dataset on disk: it has no {name}", where=str(path), hint=hint)
    return found


def _name(value: Any) -> str:
    """The name of a data file, which lies beside state.json."""
    name: str = typed.matching(str, value)
    if "/" in name or "\0" in name or name in ("", ".", ".."):
        raise ValueError(f"{name[:80]!r} is no name of a file beside it")
    return name


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


def _columns(paths: Sequence[Path], names: Sequence[str], *, where: Path) -> dict[str, Any]:
    """Columns over all files, without a copy."""
    try:
        import pyarrow
    except ImportError as error:
        what = "a Hugging Face dataset is read with the package pyarrow, which is not installed"
        raise ConfigError(what, where=str(where), hint=install("datasets")) from error
    tables = []
    for path in paths:
        try:
            files.check_plain(path)
            tables.append(pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))).read_all())
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"cannot be read as an Arrow file: {error}", where=str(path)) from error
    if not tables:
        raise DataError("the dataset has no data files", where=str(where))
    try:
        whole = pyarrow.concat_tables(tables).select(names)
        whole.validate(full=True)  # offsets that lead out of the file are not followed
    except (KeyError, pyarrow.ArrowException) as error:
        raise DataError(f"its Arrow files are not what {INFO} says: {error}", where=str(where)) from error
    return {name: whole.column(name) for name in names}
