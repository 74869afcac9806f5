"""Shards: WebDataset tar files that any WebDataset reader opens, and one index per split for reading at any position.

    <split>-00000.tar     KEY.moments.npy, KEY.cls, ...: written with the webdataset library, no clock, no owner
    <split>.index.json    {"shards": [{name, bytes, sha256, count, labels, fields: {"moments.npy": Field}}]}
    Field                 see stx/data/shard_index.py

A shard is published whole (jobs/files.py), so one that is there is complete; the index is made from the published
shards. Arrays are read by memory map. A sample's bytes are checked against its crc32 when they are first read (or all
at once by `verify`), so a damaged, truncated or missing shard is an error that names shard and sample, never wrong
numbers. Nothing is unpacked to disk and no pickle is read.
"""

import io
import re
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import webdataset
from numpy.typing import ArrayLike, NDArray

from jobs import files
from jobs.files import Unreadable
from stx import npy, records, tar
from stx.data.shard_index import Field, Shard, crc32s, nbytes, parse
from stx.errors import DataError

# KEY.EXTENSION without folders: what a reader that unpacks would be safe with.
MEMBER = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9][A-Za-z0-9._-]*)")
SHARD_BYTES = 16 << 30
LABEL = "cls"
NPY = ".npy"
KEPT_MAPS = 256  # each holds a file descriptor, of which a process has 1024


@dataclass(frozen=True)
class Sample:
    """One sample of a shard: contents by extension ("moments.npy", "cls")."""

    key: str
    fields: Mapping[str, bytes]


class Member(NamedTuple):
    """One file inside a tar."""

    key: str
    extension: str
    start: int
    content: memoryview


def key_of(index: int) -> str:
    """The key of a dataset index."""
    return f"{index:09d}"


def shard_path(folder: Path, split: str, number: int) -> Path:
    """The path of a shard."""
    return folder / f"{split}-{number:05d}.tar"


def index_path(folder: Path, split: str) -> Path:
    """The path of a split's index."""
    return folder / f"{split}.index.json"


def npy_bytes(array: NDArray[Any]) -> bytes:
    """The bytes of a .npy file."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def publish_shard(path: Path, samples: Sequence[Sample]) -> bool:
    """Write a shard and publish it by link(2). True: ours stands; False: it was there already."""
    stream = io.BytesIO()
    with webdataset.TarWriter(stream, encoder=False, mtime=0, user="", group="") as writer:
        for sample in samples:
            writer.write({"__key__": sample.key, **sample.fields})
    return files.publish(path, stream.getvalue())


def publish_index(folder: Path, split: str, *, num_shards: int, beat: Callable[[], None] = lambda: None) -> bool:
    """Describe the published shards 0 .. num_shards - 1 and publish the split's index. `beat` is called for each."""
    shards = []
    for number in range(num_shards):
        shards.append(asdict(describe(shard_path(folder, split, number))))
        beat()
    return records.publish(index_path(folder, split), {"shards": shards})


def read_shard(path: Path) -> list[Sample]:
    """All samples of a shard, in order."""
    groups = _by_key(_members(path))
    return [
        Sample(key, {member.extension: bytes(member.content) for member in members}) for key, members in groups.items()
    ]


def describe(path: Path) -> Shard:
    """The index entry of a shard."""
    groups = _by_key(_members(path))
    if not groups:
        raise DataError("the shard holds no sample", where=str(path))
    samples = [{member.extension: member for member in members} for members in groups.values()]
    extensions = samples[0].keys()
    for key, sample in zip(groups, samples, strict=True):
        if sample.keys() != extensions:
            raise DataError(f"sample {key} has {sorted(sample)}, the first one {sorted(extensions)}", where=str(path))
    fields = {extension: _describe_field(path, [sample[extension] for sample in samples]) for extension in extensions}
    labels = tuple(int(bytes(sample[LABEL].content)) for sample in samples) if LABEL in extensions else None
    return Shard(
        name=path.name,
        bytes=path.stat().st_size,
        sha256=records.file_digest(path),
        count=len(samples),
        labels=labels,
        fields=fields,
    )


def _describe_field(path: Path, members: Sequence[Member]) -> Field:
    crc32 = "".join(f"{zlib.crc32(member.content):08x}" for member in members)
    if not members[0].extension.endswith(NPY):
        return Field(crc32)
    shape, dtype, header = _read_header(path, members[0])
    written = members[0].content[:header]
    others = [member for member in members if member.content[:header] != written]  # parsing each takes 20 times as long
    for member in others:
        _read_header(path, member)
    starts = [member.start for member in members]
    stride = starts[1] - starts[0] if len(starts) > 1 else 0
    if others or starts != [starts[0] + stride * place for place in range(len(starts))]:
        raise DataError(f"the arrays {members[0].extension} differ in shape, type or spacing", where=str(path))
    return Field(crc32, dtype=dtype, shape=shape, first=starts[0], stride=stride, header=header)


def _read_header(path: Path, member: Member) -> tuple[tuple[int, ...], str, int]:
    where = f"{path}: {member.key}.{member.extension}"
    found = npy.header(member.content, where=where)
    if len(member.content) != found.offset + found.nbytes:
        raise DataError("damaged: its header promises another size", where=where, hint=npy.HINT)
    return found.shape, found.dtype.str, found.offset


def _members(path: Path) -> Iterator[Member]:
    """The files inside a tar; a name that is not KEY.EXTENSION, a link or a folder is refused."""
    data = _read(path)
    for found in tar.members(io.BytesIO(data), len(data), where=str(path)):
        match = MEMBER.fullmatch(found.name)
        if match is None or found.kind:
            what = f"refused member {found.shown}{found.kind and f', {found.kind}'}"
            raise DataError(f"{what}: a shard holds plain files named KEY.EXTENSION", where=str(path))
        yield Member(match[1], match[2], found.start, memoryview(data)[found.start : found.start + found.size])


def _by_key(members: Iterator[Member]) -> dict[str, list[Member]]:
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(member.key, []).append(member)
    return groups


def _read(path: Path) -> bytes:
    try:
        data = files.read(path, limit=SHARD_BYTES)
    except Unreadable as error:
        raise DataError(str(error.strerror), where=str(path), hint=_again(path)) from error
    if data is None:
        raise _missing(path)
    return data


def _missing(path: Path) -> DataError:
    return DataError("the shard is missing", where=str(path), hint=_again(path))


def _again(path: Path) -> str:
    return f"the copy in the store is damaged: remove {path.parent.parent} and submit again, it will be made anew"


class ShardSet:
    """The shards of one split, read at any position."""

    def __init__(self, folder: Path, split: str) -> None:
        path = index_path(folder, split)
        record = records.find(path, limit=records.INDEX_BYTES)
        if record is None:
            raise DataError("no index: this folder holds no finished shards of that split", where=str(path))
        self._folder, self._index = folder, path
        with records.understood(path):
            self.shards = parse(record)
        self.sizes = tuple(shard.count for shard in self.shards)
        self._ends = np.cumsum(self.sizes)
        self.num_samples = int(self._ends[-1])
        self._maps: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._checked: dict[tuple[int, str], NDArray[np.bool_]] = {}
        self._places: dict[int, dict[str, list[tuple[int, int]]]] = {}

    @property
    def labels(self) -> NDArray[np.int64]:
        """The label of every sample."""
        if self.shards[0].labels is None:
            raise DataError("its samples have no labels", where=str(self._index))
        return np.concatenate([np.asarray(shard.labels, dtype=np.int64) for shard in self.shards])

    def gather(self, extension: str, indices: ArrayLike, *, dtype: Any = None) -> NDArray[Any]:
        """The arrays of some samples (R, ...), in the order asked for, converted on the way if a dtype is given."""
        wanted = np.asarray(indices, dtype=np.int64)
        assert wanted.size == 0 or (wanted.min() >= 0 and wanted.max() < self.num_samples), "no such sample"
        field = self._field(extension)
        if field.dtype is None:
            raise DataError(f"{extension} is no array", where=str(self._index))
        out = np.empty((len(wanted), *field.shape), dtype=field.dtype if dtype is None else dtype)
        numbers = np.searchsorted(self._ends, wanted, side="right")
        order = np.argsort(numbers, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
            if len(rows):
                number = int(numbers[rows[0]])
                places = wanted[rows] - (self._ends[number] - self.sizes[number])
                self._check(number, extension, places)
                arrays = _arrays(self.shards[number], extension, self._map(number))
                # One copy each, where fancy indexing makes two; numpy integers would cost more than the copy.
                for row, place in zip(rows.tolist(), places.tolist(), strict=True):
                    out[row] = arrays[place]
        return out

    def content(self, extension: str, index: int) -> bytes:
        """The bytes of one sample's file, of any extension; compared with its crc32. May be called from threads."""
        self._field(extension)
        number = int(np.searchsorted(self._ends, index, side="right"))
        place, shard = index - int(self._ends[number]) + self.sizes[number], self.shards[number]
        path = self._folder / shard.name
        if number not in self._places:
            self._places[number] = _places(path, shard)
        start, size = self._places[number][extension][place]
        with path.open("rb") as stream:
            stream.seek(start)
            data = stream.read(size)
        if zlib.crc32(data) != crc32s(shard.fields[extension])[place]:
            raise _damage(path, shard)
        return data

    def _field(self, extension: str) -> Field:
        found = self.shards[0].fields.get(extension)
        if found is None:
            there = ", ".join(sorted(self.shards[0].fields))[:200]
            raise DataError(f"its samples have no {extension}, only {there}", where=str(self._index))
        return found

    def samples(self) -> Iterator[Sample]:
        """All samples in order, read shard by shard."""
        for shard in self.shards:
            yield from read_shard(self._folder / shard.name)

    def verify(self) -> None:
        """Compare every shard with its digest; the error names the shard and the first damaged sample."""
        for number, shard in enumerate(self.shards):
            self._map(number)
            path = self._folder / shard.name
            if records.file_digest(path) != shard.sha256:
                raise _damage(path, shard)
            for extension in shard.fields:
                self._checks(number, extension)[:] = True

    def _checks(self, number: int, extension: str) -> NDArray[np.bool_]:
        found = self._checked.get((number, extension))
        if found is None:
            found = self._checked[number, extension] = np.zeros(self.sizes[number], dtype=bool)
        return found

    def _check(self, number: int, extension: str, places: NDArray[np.int64]) -> None:
        """Compare the samples that are read for the first time with their crc32."""
        checked, shard = self._checks(number, extension), self.shards[number]
        new = places[~checked[places]]
        if len(new):
            field, data = shard.fields[extension], self._map(number)
            size, expected = field.header + nbytes(field), crc32s(field)
            for place in new:
                start = field.first + field.stride * int(place)
                if zlib.crc32(data[start : start + size]) != expected[place]:
                    raise _damage(self._folder / shard.name, shard)
            checked[new] = True

    def _map(self, number: int) -> NDArray[np.uint8]:
        found = self._maps.get(number)
        if found is None:
            found = self._maps[number] = _open_map(self._folder / self.shards[number].name, self.shards[number])
            if len(self._maps) > KEPT_MAPS:
                self._maps.popitem(last=False)
        self._maps.move_to_end(number)
        return found


def _check_size(path: Path, shard: Shard) -> None:
    """The shard is the plain file of its size that the index describes."""
    try:
        size = files.check_plain(path)
    except FileNotFoundError:
        raise _missing(path) from None
    except Unreadable as error:
        raise DataError(str(error.strerror), where=str(path), hint=_again(path)) from error
    if size != shard.bytes:  # reading a map beyond the end of its file would kill the process
        raise _damage(path, shard)


def _open_map(path: Path, shard: Shard) -> NDArray[np.uint8]:
    _check_size(path, shard)
    return np.memmap(path, dtype=np.uint8, mode="r")


def _places(path: Path, shard: Shard) -> dict[str, list[tuple[int, int]]]:
    """Start and size of every sample's file by extension, from the headers alone."""
    _check_size(path, shard)
    found: dict[str, list[tuple[int, int]]] = {extension: [] for extension in shard.fields}
    try:
        with files.opened(path) as stream:
            for member in tar.members(stream, shard.bytes, where=str(path)):
                found[member.name.partition(".")[2]].append((member.start, member.size))
    except (DataError, KeyError) as error:
        raise _damage(path, shard) from error
    if any(len(places) != shard.count for places in found.values()):
        raise _damage(path, shard)
    return found


def _arrays(shard: Shard, extension: str, data: NDArray[np.uint8]) -> NDArray[Any]:
    """The arrays of one extension, (count, ...), in place."""
    field = shard.fields[extension]
    one = np.empty(field.shape, dtype=field.dtype)
    return np.ndarray(
        (shard.count, *field.shape),
        dtype=field.dtype,
        buffer=data,
        offset=field.first + field.header,
        strides=(field.stride, *one.strides),
    )


def _damage(path: Path, shard: Shard) -> DataError:
    """The error for a shard that does not match its index."""
    return DataError(f"damaged: {_first_difference(path, shard)}", where=str(path), hint=_again(path))


def _first_difference(path: Path, shard: Shard) -> str:
    seen = 0
    try:
        for key, members in _by_key(_members(path)).items():
            for member in members:
                field = shard.fields.get(member.extension)
                if field is None or seen >= shard.count or zlib.crc32(member.content) != crc32s(field)[seen]:
                    return f"sample {key} ({member.extension}) is not what was written"
            seen += 1
    except DataError as error:
        return error.what
    if seen < shard.count:
        return f"truncated after {seen} of {shard.count} samples"
    return "its bytes are not those that were written, though every sample can be read"
