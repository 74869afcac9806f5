"""Files that are truncated or get another bit, as a bad disk does it: which ones, how, and what must come of it.

scratch     working files: whoever reads them next does without
    checkpoint  a file of the newest checkpoint of a stage that has an older one
    aside       what a dead attempt or coordinator left half-written
    heartbeat   metrics   of the attempt that moved last
    journal     its last line, while no coordinator lives
published   what was promised: whoever reads it next must refuse it by name, and nothing may be computed from it
    payload     a file of a finished result
    artifact    its artifact.json, in what it promises: digests, files, images
    record      stage.json, or the claim of an attempt
"""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stx.paths import StageDir

PROMISED = (b'"digest"', b'"info"')  # in artifact.json the keys are sorted: what lies between them is promised
NEWEST = 2
WRITER = re.compile(r"\.(\d+)-[0-9a-f]{8}\.tmp$")  # jobs.files: the process that writes a temporary file

Busy = Callable[[Path], bool]


@dataclass(frozen=True)
class Damaged:
    """A file that was damaged, and where a copy of it lies, as a person would have one in a backup."""

    path: Path
    backup: Path
    number: int

    def restore(self) -> None:
        """Bring the file back. One that was removed or replaced meanwhile is brought back, too."""
        aside = self.path.with_name(f".{self.path.name}.restored")
        shutil.copy2(self.backup, aside)
        aside.rename(self.path)

    def is_standing(self) -> bool:
        """Whether the damaged bytes are still there."""
        return self.path.exists() and self.path.read_bytes() != self.backup.read_bytes()

    def named_in(self, text: str, *, store: Path) -> bool:
        """Whether a message says which file is bad: by its path in the store, or for results by that of the result."""
        name = self.path.relative_to(store)
        result = name.parent.parent if name.parent.name == "payload" else name.parent
        is_record = name.name == "stage.json" or name.name.endswith((".intent.json", ".jsonl"))
        return str(name) in text or (not is_record and str(result) in text)


def damaged(data: bytes, *, truncate: bool, where: float, within: tuple[int, int] | None = None) -> bytes:
    """Cut off at the relative place `where`, or with one bit flipped there; `within` these bytes, if given."""
    begin, end = within or (0, len(data))
    if truncate:
        return data[: begin + int(where * (end - begin))]
    bit = int(where * 8 * (end - begin))
    place = begin + bit // 8
    return data[:place] + bytes([data[place] ^ (1 << bit % 8)]) + data[place + 1 :]


def spoil(path: Path, *, truncate: bool, where: float, backups: Path, number: int) -> Damaged | None:
    """Damage a file in place, as a disk does: no rename, the same inode. None: it is empty or gone."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if not data:
        return None
    backups.mkdir(exist_ok=True)
    backup = backups / f"{number}-{path.name}"
    shutil.copy2(path, backup)
    with path.open("r+b") as stream:
        stream.write(damaged(data, truncate=truncate, where=where, within=_within(path, data)))
        stream.truncate()
    return Damaged(path, backup, number)


def _within(path: Path, data: bytes) -> tuple[int, int] | None:
    if path.name == "artifact.json":
        return data.index(PROMISED[0]), data.index(PROMISED[1])
    if path.suffix == ".jsonl":
        return data.rstrip(b"\n").rfind(b"\n") + 1, len(data)
    return None


def targets(store: Path, target: str, *, busy: Busy) -> list[Path]:
    """The files of this class that may be damaged now. `busy`: whether somebody alive works in a stage directory."""
    stages = [StageDir(path) for path in sorted((store / "stages").glob("*-*"))]
    match target:
        case "checkpoint":
            return _newest_checkpoints(stages)
        case "aside":
            free = [stage.path for stage in stages if not busy(stage.path)]
            return [path for folder in free for path in _files(folder, ".*.aside/*", ".*.tmp") if _is_left(path)]
        case "heartbeat" | "metrics":
            suffix = "heartbeat.json" if target == "heartbeat" else "metrics.jsonl"
            return _moved_last([path for stage in stages for path in stage.path.glob(f"attempts/*/{suffix}")])
        case "journal":
            return sorted(store.glob("experiments/*/events-*.jsonl"), key=os.path.getmtime)[-1:]
        case "payload":
            return [path for stage in stages for path in _payload(stage.path)]
        case "artifact":
            return [path for stage in stages for path in _files(stage.path, "artifact.json")]
        case "record":
            return [path for stage in stages for path in _files(stage.path, "stage.json", "*.intent.json")]
    raise ValueError(f"no class of files {target!r}")


def _is_left(path: Path) -> bool:
    """Whether nobody writes this file any more: one that is about to be linked to its name is a record already."""
    writer = WRITER.search(path.name)
    return writer is None or not Path("/proc", writer[1]).exists()


def _newest_checkpoints(stages: Sequence[StageDir]) -> list[Path]:
    found = []
    for stage in stages:
        newest = stage.newest_checkpoint()
        if newest is not None and len(stage.saved()) > 1 and not _is_over(stage):
            found += sorted(path for path in newest.iterdir() if not path.name.startswith("."))
    return found


def _is_over(stage: StageDir) -> bool:
    """A stage that is finished reads no checkpoint any more."""
    return stage.newest_checkpoint() is None or stage.result.artifact.exists()


def _payload(stage: Path) -> list[Path]:
    """The files of finished results: payload/, milestones/<images>/ and parts/<images>/."""
    found = []
    for artifact in stage.rglob("artifact.json"):
        folder = artifact.parent / "payload"
        folder = folder if folder.is_dir() else artifact.parent
        found += [path for path in folder.iterdir() if path.is_file() and path != artifact and path.name[0] != "."]
    return sorted(found)


def _files(folder: Path, *patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in folder.rglob(pattern) if path.is_file())


def _moved_last(paths: Sequence[Path]) -> list[Path]:
    times = {}
    for path in paths:
        try:
            times[path] = path.stat().st_mtime
        except OSError:
            continue
    return sorted(times, key=lambda path: times[path])[-NEWEST:]
