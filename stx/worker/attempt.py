"""What one attempt was told, parsed once at the door: attempt.json (written by the coordinator) and the environment of
this rank.

A stage kind is stx/worker/NAME.py with `run(attempt)`: returning means COMPLETED, `Yielded` means saved and to be run
again, anything else means FAILED. What the outcome should say besides goes into `attempt.notes`. Nothing here needs
torch: a `command` stage starts without it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs import runtime, typed
from jobs.files import AttemptDir
from stx import records
from stx.errors import DataError, StxError
from stx.paths import PartDir, StageDir
from stx.spec import Artifact, StageSpec, read_artifact, wanted


class Yielded(Exception):
    """The stage left what it has in the store and asks to be run again."""


class NonFinite(StxError):
    """The numbers stopped being numbers: cause NAN."""


class BadNode(StxError):
    """This node is not as it should be, and another one may be: cause NODE."""


@dataclass(frozen=True)
class InputPath:
    """A finished input: one result where `images` is given or the kind does not grow, else a whole trajectory."""

    kind: str
    key: str
    images: int | None
    path: Path

    @property
    def payload(self) -> Path:
        """The folder of the content files of a kind that does not grow."""
        return StageDir(self.path).payload

    @property
    def stage(self) -> StageDir:
        """The stage directory, for an input that is a whole trajectory."""
        return StageDir(self.path)

    @property
    def part(self) -> PartDir:
        """The one result, for an input that is one."""
        return PartDir(self.path)

    def artifact(self) -> Artifact:
        """Its published record: digests of its files."""
        return read_artifact(self.part.artifact)


@dataclass(frozen=True)
class Attempt:
    """One rank's view of its attempt."""

    folder: AttemptDir
    tag: str
    experiment: str
    number: int
    spec: StageSpec
    where: Mapping[str, Any]
    layout: Mapping[str, Any]
    inputs: Mapping[str, InputPath]
    threads: int
    hang_after_s: Mapping[str, float]
    checkpoint_every_s: float
    checkpoint_keep: int
    max_stall: float
    stop_lead_s: float
    time_s: float
    science_digest: str
    accept_code: bool
    rank: int
    world_size: int
    local_rank: int
    heart: runtime.Heart
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def stage(self) -> StageDir:
        """attempts/NNN lies in its stage."""
        return StageDir(self.folder.path.parent.parent)

    @property
    def kind(self) -> str:
        """The stage kind."""
        return self.spec.kind

    @property
    def key(self) -> str:
        """The stage's key."""
        return self.spec.key

    @property
    def science(self) -> Mapping[str, Any]:
        """The options that are in the key."""
        return self.spec.science

    def wanted(self) -> set[int]:
        """The images-seen counts that live experiments want now; reread, so that one that was added later is seen."""
        return wanted(self.stage)

    def input(self, name: str) -> InputPath:
        """The input of that option path; a missing one is the coordinator's mistake."""
        assert name in self.inputs, f"{self.tag}: attempt.json names no input {name!r}, only {sorted(self.inputs)}"
        return self.inputs[name]

    def leave_if_asked(self, **notes: Any) -> None:
        """Raise Yielded when this attempt was asked to stop. Call it where everything done so far is in the store."""
        if runtime.stop_requested():
            self.notes.update(notes)
            raise Yielded


@dataclass(frozen=True)
class _Saving:
    """`checkpoint` of attempt.json."""

    every_s: float
    keep: int
    max_stall: float


@dataclass(frozen=True)
class _Told:
    """What a worker takes from attempt.json."""

    tag: str
    experiment: str
    number: int
    spec: StageSpec
    where: Mapping[str, Any]
    layout: Mapping[str, Any]
    inputs: Mapping[str, InputPath]
    threads: int
    hang_after_s: Mapping[str, float]
    checkpoint: _Saving
    stop_lead_s: float
    time_s: float
    science_digest: str
    accept_code: bool


def parse(folder: Path) -> Attempt:
    """The attempt in `folder`, for the rank that the environment names."""
    attempt_dir = AttemptDir(folder)
    record = records.read(attempt_dir.attempt)
    with records.understood(attempt_dir.attempt):
        told = typed.build(_Told, {name: record[name] for name in _Told.__dataclass_fields__})
    return Attempt(
        folder=attempt_dir,
        tag=told.tag,
        experiment=told.experiment,
        number=told.number,
        spec=told.spec,
        where=told.where,
        layout=told.layout,
        inputs=told.inputs,
        threads=told.threads,
        hang_after_s=told.hang_after_s,
        checkpoint_every_s=told.checkpoint.every_s,
        checkpoint_keep=told.checkpoint.keep,
        max_stall=told.checkpoint.max_stall,
        stop_lead_s=told.stop_lead_s,
        time_s=told.time_s,
        science_digest=told.science_digest,
        accept_code=told.accept_code,
        rank=runtime.rank(),
        world_size=runtime.world_size(),
        local_rank=runtime.local_rank(),
        heart=runtime.Heart(folder),
    )


def check_external(attempt: Attempt, *, name: str, path: Path) -> None:
    """Record what an external file or folder looked like when the stage first ran; refuse to go on when it changed."""
    check_fingerprint(attempt, name=name, where=path, seen=fingerprint(path))


def check_fingerprint(attempt: Attempt, *, name: str, where: Path, seen: dict[str, Any]) -> None:
    """The same for what a stage has looked at itself."""
    record = attempt.stage.fingerprint(name)
    record.parent.mkdir(exist_ok=True)
    if records.publish(record, seen) or records.read(record) == seen:
        return
    raise DataError(
        f"{name} changed since this stage first ran",
        where=str(where),
        hint=f"give the new content a new `version:` (it is in the key), or restore the old; what was seen: {record}",
    )


def fingerprint(path: Path) -> dict[str, Any]:
    """Size and sha256 of a file; of a folder, the number of files and a digest of their names and sizes."""
    if path.is_file():
        return {"bytes": path.stat().st_size, "sha256": records.file_digest(path)}
    if not path.is_dir():
        raise DataError("no such file or folder", where=str(path))
    files = sorted((str(file.relative_to(path)), file.stat().st_size) for file in path.rglob("*") if file.is_file())
    listing = "\n".join(f"{name} {size}" for name, size in files).encode()
    return {"files": len(files), "names_and_sizes": hashlib.sha256(listing).hexdigest()}
