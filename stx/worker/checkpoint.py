"""Checkpoints by parameter name, in flat slices: any number of ranks writes them, any number can read them.

    checkpoints/<images>-<attempt>/
        rank-<r>.safetensors   tensors "<section>/<name>|<offset>": elements of the flattened tensor, from <offset> on
        manifest.json          shapes, the slice table, size and sha256 of every file, images, step, who wrote it

Sections of a train stage are master, exp_avg, exp_avg_sq, ema. Every rank writes what it owns into an aside folder;
when all are durable, rank 0 writes the manifest and renames the folder: a checkpoint is complete when it bears its
name. Restoring takes the newest that verifies; a damaged one is named in the log and the one before it is used; if
there are some and none verifies, that is an error: training silently from scratch is the worst answer.
"""

import contextlib
import hashlib
import logging
import math
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jobs import files, typed
from stx import records
from stx.errors import DataError, StoreError, StxError
from stx.paths import CHECKPOINT
from stx.worker import tensors
from stx.worker.ranks import Ranks

logger = logging.getLogger(__name__)
FORMAT = 1
_FILE = re.compile(r"rank-[0-9]{1,7}\.safetensors")
_PIECE = 64 << 20  # bytes written between two beats of the heart
# What a rank is expected to write in a second until a save was measured: a slow share of a network file system.
ASSUMED_BYTES_PER_S = 200e6


def unwatched() -> None:
    """The beat of who is watched by nobody."""


@dataclass(frozen=True)
class Slice:
    """Elements [offset, offset + values.numel()) of the flattened tensor `name`; `values` is one-dimensional."""

    section: str
    name: str
    offset: int
    values: Tensor

    @property
    def key(self) -> str:
        """Its name in the file."""
        return f"{self.section}/{self.name}|{self.offset}"


@dataclass(frozen=True)
class Identity:
    """What must be equal for a checkpoint to be ours: the stage, its recipe, the sources that define the science."""

    key: str
    recipe: int
    science_digest: str


@dataclass(frozen=True)
class _RankFile:
    """What a manifest says of one file; a slice is (section, name, offset, count)."""

    name: str
    bytes: int
    sha256: str
    slices: tuple[tuple[str, str, int, int], ...]


@dataclass(frozen=True)
class _Manifest:
    """What every manifest says."""

    format: int
    images: int
    files: tuple[_RankFile, ...]
    shapes: Mapping[str, tuple[int, ...]]
    key: str
    recipe: int
    science_digest: str
    progress: Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint whose files verified. `beat` is called for each piece that is read."""

    path: Path
    manifest: Mapping[str, Any]
    beat: Callable[[], None] = field(default=unwatched, compare=False)

    @property
    def images(self) -> int:
        """Images seen."""
        return int(self.manifest["images"])

    @property
    def progress(self) -> Mapping[str, Any]:
        """What the stage itself recorded (step, updates, ...)."""
        return self.manifest["progress"]

    @property
    def shapes(self) -> Mapping[str, Sequence[int]]:
        """Shape by tensor name."""
        return self.manifest["shapes"]

    @property
    def seconds_per_byte(self) -> float:
        """What writing it took, for each byte of a rank."""
        size = self.manifest["files"][0]["bytes"]
        return float(self.manifest.get("seconds", size / ASSUMED_BYTES_PER_S)) / max(1, size)

    def names(self, section: str) -> list[str]:
        """The tensors of one section."""
        return sorted({name for file in self.manifest["files"] for one, name, _, _ in file["slices"] if one == section})

    def read(self, section: str) -> dict[str, Tensor]:
        """All tensors of one section, whole."""
        with self.reader() as read_one:
            return {name: read_one(section, name) for name in self.names(section)}

    @contextlib.contextmanager
    def reader(self) -> Iterator[Callable[[str, str], Tensor]]:
        """Reads one tensor (section, name) at a time, whole."""
        with _Files(self) as opened:
            yield lambda section, name: opened.elements(
                section, name, 0, torch.Size(self.shapes[name]).numel()
            ).reshape(list(self.shapes[name]))

    def fill(self, slices: Iterable[Slice]) -> None:
        """Copy the stored elements into the `values` of these slices, whatever slices they were stored in."""
        with _Files(self) as opened:
            for one in slices:
                stop = one.offset + one.values.numel()
                one.values.copy_(opened.elements(one.section, one.name, one.offset, stop))


class _Files:
    """The open rank files of a checkpoint and where every slice lies."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._opened: dict[str, Any] = {}
        self._table: dict[tuple[str, str], list[tuple[int, int, str]]] = {}
        for file in checkpoint.manifest["files"]:
            for section, name, offset, count in file["slices"]:
                self._table.setdefault((section, name), []).append((offset, count, file["name"]))

    def __enter__(self) -> "_Files":
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.clear()

    def elements(self, section: str, name: str, start: int, stop: int) -> Tensor:
        """Elements [start, stop) of a tensor, from the slices that hold them."""
        pieces, reached = [], start
        for offset, count, file in sorted(self._table.get((section, name), [])):
            low, high = max(offset, reached), min(offset + count, stop)
            if low == reached and low < high:
                stored = self._file(file).get_slice(f"{section}/{name}|{offset}")
                pieces.append(stored[low - offset : high - offset])
                self._checkpoint.beat()
                reached = high
        if reached != stop or not pieces:
            raise DataError(
                f"holds elements {start} to {reached} of {section}/{name}, not to {stop}",
                where=str(self._checkpoint.path),
            )
        return torch.cat(pieces) if len(pieces) != 1 else pieces[0]

    def _file(self, name: str) -> Any:
        if name not in self._opened:
            self._opened[name] = tensors.opened(self._checkpoint.path / name)
        return self._opened[name]


@dataclass
class Keeper:
    """The checkpoints of one stage: saves, finds, keeps the newest `keep`. `beat` is called for each piece that is
    written or read: what is slow and moves is no hang.
    """

    folder: Path
    attempt: int
    identity: Identity
    ranks: Ranks
    keep: int
    beat: Callable[[], None] = unwatched
    rejected: list[str] = field(default_factory=list)
    save_seconds: float = 0.0  # the last save of this attempt
    seconds_per_byte: float = 1 / ASSUMED_BYTES_PER_S  # of what one rank writes
    restored_seconds: float = 0.0  # what writing the restored one took, by whatever number of ranks

    def expected_seconds(self, slices: Sequence[Slice]) -> float:
        """How long a save of these slices should take: measured at the last one, or at the one that was restored, in
        seconds for each byte of a rank; assumed before the first. With more ranks than wrote the restored one, no less
        than it took: the store may be what is slow.
        """
        return max(self.restored_seconds, sum(one.values.nbytes for one in slices) * self.seconds_per_byte)

    def save(
        self, *, images: int, slices: Sequence[Slice], shapes: Mapping[str, Sequence[int]], progress: Mapping[str, Any]
    ) -> Checkpoint:
        """Write one checkpoint; all ranks call it together. A count this attempt has saved is left alone."""
        began = time.monotonic()
        name = f"{images}-{self.attempt:03d}"
        final, aside = self.folder / name, self.folder / f".{name}.aside"
        if self.ranks.agree(final.exists()):
            return opened(final, beat=self.beat)
        aside.mkdir(parents=True, exist_ok=True)
        written = self.ranks.gather(write_rank_file(aside, rank=self.ranks.rank, slices=slices, beat=self.beat))
        manifest = {"format": FORMAT, "images": images, "attempt": self.attempt, "world_size": self.ranks.size}
        manifest |= {"files": written, "shapes": {name: list(shape) for name, shape in shapes.items()}}
        manifest |= {
            "key": self.identity.key,
            "recipe": self.identity.recipe,
            "science_digest": self.identity.science_digest,
        }
        manifest |= {"progress": dict(progress), "seconds": time.monotonic() - began}
        if self.ranks.rank == 0:
            complete(aside, final, manifest=manifest)
            self._prune()
        self.ranks.agree(True)  # nobody runs ahead of the rename
        self.save_seconds = time.monotonic() - began
        self.seconds_per_byte = self.save_seconds / max(1, written[self.ranks.rank]["bytes"])
        self.restored_seconds = 0.0
        size = sum(file["bytes"] for file in written)
        logger.info("saved checkpoint images=%d seconds=%.2f bytes=%d", images, self.save_seconds, size)
        return Checkpoint(final, manifest, self.beat)

    def restore(self, *, accept_code: bool) -> Checkpoint | None:
        """The newest checkpoint that verifies, None if there is none; all ranks call it together and get the same."""
        if self.ranks.rank == 0:
            self._sweep()
        names = self.ranks.agree([path.name for path in found(self.folder)])
        for name in reversed(names):
            fault = self._fault(self.folder / name)
            if fault is None:
                checkpoint = opened(self.folder / name, beat=self.beat)
                self._check_identity(checkpoint, accept_code=accept_code)
                self.seconds_per_byte = checkpoint.seconds_per_byte
                self.restored_seconds = float(checkpoint.manifest.get("seconds", 0.0))
                return checkpoint
            logger.error("checkpoint %s is damaged and not used: %s", self.folder / name, fault)
            self.rejected.append(name)
        if names:
            raise DataError(
                f"there are checkpoints ({', '.join(names)}) and none verifies: this stage should resume and cannot",
                where=str(self.folder),
                hint="bring the files back, or remove the folder to train from the first image",
            )
        return None

    def _fault(self, path: Path) -> str | None:
        """What is wrong with a checkpoint; ranks share the reading and all get the same answer."""
        faults = self.ranks.gather(verify(path, share=self.ranks.rank, of=self.ranks.size, beat=self.beat))
        return next((fault for fault in faults if fault), None)

    def _check_identity(self, checkpoint: Checkpoint, *, accept_code: bool) -> None:
        manifest, ours = checkpoint.manifest, self.identity
        if (manifest["key"], manifest["recipe"]) != (ours.key, ours.recipe):
            raise DataError(
                "belongs to another stage or recipe", where=str(checkpoint.path), hint=f"this stage is {ours.key}"
            )
        if manifest["science_digest"] != ours.science_digest and not accept_code:
            raise StxError(
                f"was written by other science code: {manifest['science_digest'][:12]}, now {ours.science_digest[:12]}",
                where=str(checkpoint.path),
                hint="`stx submit FILE --accept-code` resumes it with the new code; "
                "a new recipe of the stage kind starts over",
            )

    def _prune(self) -> None:
        """Remove what is older than the newest `keep`, and what did not verify."""
        good = [path for path in found(self.folder) if path.name not in self.rejected]
        bad = [self.folder / name for name in self.rejected if (self.folder / name).exists()]
        for path in [*good[: -self.keep], *bad]:
            # Renamed first: a half-removed folder must not bear the name of a complete checkpoint.
            trash = path.with_name(f".{path.name}.trash")
            with contextlib.suppress(FileNotFoundError):  # an attempt that was given up for lost may prune, too
                path.rename(trash)
                shutil.rmtree(trash)

    def _sweep(self) -> None:
        """Remove what earlier attempts left unfinished."""
        for path in self.folder.glob(".*"):
            match = CHECKPOINT.search(path.name)
            if match and int(match[2]) < self.attempt:
                shutil.rmtree(path, ignore_errors=True)


def found(folder: Path) -> list[Path]:
    """The complete checkpoints of a stage, oldest first."""
    if not folder.is_dir():
        return []
    named = [(match, path) for path in folder.iterdir() if (match := CHECKPOINT.fullmatch(path.name))]
    return [path for match, path in sorted(named, key=lambda pair: (int(pair[0][1]), int(pair[0][2])))]


def opened(path: Path, *, beat: Callable[[], None] = unwatched) -> Checkpoint:
    """The checkpoint at `path`, which the caller has verified."""
    return Checkpoint(path, read_manifest(path), beat)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the checkpoint at `path`; StoreError where it says what cannot be."""
    file = path / "manifest.json"
    record = records.read(file, limit=records.MANIFEST_BYTES)
    with records.understood(file):
        told = typed.build(_Manifest, {name: record[name] for name in _Manifest.__dataclass_fields__})
        if typed.matching(float, record.get("seconds", 0.0)) < 0:
            raise ValueError("it took less than no time")
        sizes = {name: math.prod(shape) for name, shape in told.shapes.items() if min(shape, default=0) >= 0}
        for one in told.files:
            if not _FILE.fullmatch(one.name):
                raise ValueError(f"{one.name[:80]!r} is no name of a rank's file")
            for _, name, offset, count in one.slices:
                if not 0 <= offset <= offset + count <= sizes[name]:
                    raise ValueError(f"{one.name} holds elements {offset} to {offset + count} of {name[:80]!r}")
    return record


def verify(path: Path, *, share: int = 0, of: int = 1, beat: Callable[[], None] = unwatched) -> str | None:
    """What is wrong with the checkpoint at `path`, or None. One of `of` readers takes every `of`-th file."""
    try:
        manifest = read_manifest(path)
        listed = manifest["files"][share::of]
        if manifest["format"] != FORMAT:
            return f"format {manifest['format']} is not {FORMAT}"
        for file in listed:
            if (path / file["name"]).stat().st_size != file["bytes"]:
                return f"{file['name']} has not {file['bytes']} bytes"
            if records.file_digest(path / file["name"], beat=beat) != file["sha256"]:
                return f"{file['name']} has another sha256 than its manifest says"
            with tensors.opened(path / file["name"]):
                pass
    except (StxError, OSError) as error:
        return str(error) or repr(error)
    return None


def write_rank_file(
    aside: Path, *, rank: int, slices: Sequence[Slice], beat: Callable[[], None] = unwatched
) -> dict[str, Any]:
    """Write this rank's slices; the entry of the manifest."""
    name = f"rank-{rank}.safetensors"
    digest, size = hashlib.sha256(), 0

    def measured() -> Iterator[bytes | memoryview]:
        nonlocal size
        for chunk in tensors.chunks({one.key: one.values for one in slices}):
            for begin in range(0, len(chunk), _PIECE):
                piece = chunk[begin : begin + _PIECE]
                digest.update(piece)
                size += len(piece)
                yield piece
                beat()

    temp = files.write_temp(aside / name, measured())
    temp.rename(aside / name)
    table = [[one.section, one.name, one.offset, one.values.numel()] for one in slices]
    return {"name": name, "bytes": size, "sha256": digest.hexdigest(), "slices": table}


def complete(aside: Path, final: Path, *, manifest: Mapping[str, Any]) -> None:
    """Check that every rank's file is there, write the manifest, and give the folder its name."""
    for file in manifest["files"]:
        size = (aside / file["name"]).stat().st_size
        if size != file["bytes"]:
            raise StoreError(f"has {size} bytes, {file['bytes']} were written", where=str(aside / file["name"]))
    records.write(aside / "manifest.json", dict(manifest))
    files.fsync_dir(aside)
    aside.rename(final)
    files.fsync_dir(final.parent)
