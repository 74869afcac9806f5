"""What of a store may go: found and measured, nothing removed. sweep.py removes.

    stage        no graph wants it, nobody pinned it, no attempt works on it or on what was made from it
    checkpoint   of a finished stage: all, and of a train stage all but the newest, from which more steps could go on
    leftover     temporary files of processes that were killed, outputs of programs that failed; older than an hour
    code         copies of the sources that no live attempt or coordinator uses and no submit used for a day
    trash        what an earlier gc had decided to remove when it was killed

Results of stages that are wanted are never touched, whatever milestones they are of. Ages are differences of times of
one file server: no clock of this machine is compared with it.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stx import records, sharing
from stx.coordinator import lease, store_clock
from stx.coordinator.roots import PINNED, Roots, stage_dirs
from stx.coordinator.snapshot import digest_of
from stx.paths import CHECKPOINT, StageDir, Store
from stx.spec import GROWING

LEFTOVER_AGE_S = 3600.0
CODE_AGE_S = 86400.0
_ASIDE = (".tmp", ".aside", ".trash")


@dataclass(frozen=True)
class Garbage:
    """One thing that may go. `stage` is the directory's name it belongs to, or ""; `changed_ns` its time of change;
    `user` who made it, or "" if we did.
    """

    kind: str
    path: Path
    why: str
    stage: str
    bytes: int
    files: int
    changed_ns: int
    user: str = ""

    def dump(self) -> dict[str, Any]:
        """Its JSON."""
        record = asdict(self) | {"path": str(self.path)}
        del record["changed_ns"]
        return record


def garbage(store: Store, roots: Roots) -> list[Garbage]:
    """All that may go, in the order in which it is shown and removed."""
    now, me = store_clock.now(store)
    found = [*_stages(store, roots), *_checkpoints(store, roots), *_leftovers(store, roots, now=now)]
    found += [*_codes(store, roots, now=now), *_trash(store)]
    return [replace(one, user=_maker(one.path, me=me)) for one in found]


def _maker(path: Path, *, me: int) -> str:
    with contextlib.suppress(FileNotFoundError):
        owner = path.lstat().st_uid
        return "" if owner == me else sharing.user_name(owner)
    return ""


def of_experiment(store: Store, name: str) -> Garbage:
    """The folder of an experiment that is to be forgotten."""
    return _measured("experiment", store.experiment(name).path, "to be forgotten")


def _stages(store: Store, roots: Roots) -> Iterator[Garbage]:
    for stage in stage_dirs(store):
        if stage.path.name not in roots.stages:
            yield _measured("stage", stage.path, "no experiment wants it", stage=stage.path.name)


def _checkpoints(store: Store, roots: Roots) -> Iterator[Garbage]:
    for name, wants in roots.wants.items():
        stage, kind = StageDir(store.stages / name), name.rpartition("-")[0]
        if name in roots.alive or roots.stages[name] == PINNED or not is_finished(stage, kind=kind, wants=wants):
            continue
        saved = sorted(_saved(stage))
        for images, attempt, path in saved[:-1] if kind == "train" else saved:
            why = "a later one is kept" if kind == "train" else "its stage is finished"
            yield _measured("checkpoint", path, f"{images:,} images, attempt {attempt}; {why}", stage=name)


def is_finished(stage: StageDir, *, kind: str, wants: frozenset[int]) -> bool:
    """Whether all that experiments want of a stage is published."""
    return wants <= set(stage.parts(kind)) if kind in GROWING else stage.result.artifact.exists()


def _saved(stage: StageDir) -> Iterator[tuple[int, int, Path]]:
    for path in _entries(stage.checkpoints):
        match = CHECKPOINT.fullmatch(path.name)
        if match:
            yield int(match[1]), int(match[2]), path


def _leftovers(store: Store, roots: Roots, *, now: float) -> Iterator[Garbage]:
    for stage in stage_dirs(store):
        name = stage.path.name
        if name in roots.stages and name not in roots.alive:
            for path in [*_asides(stage.path), *_outputs(stage)]:
                yield from _old("leftover", path, "of a process that was killed", now=now, stage=name)
    for experiment in store.experiment_names():
        if lease.holder(store.experiment(experiment)) is None:
            for path in _asides(store.experiment(experiment).path):
                yield from _old("leftover", path, "of a process that was killed", now=now)
    for path in [*sorted(store.root.iterdir()), *_entries(store.codes), *_entries(store.stages)]:
        if _is_aside(path.name):
            yield from _old("leftover", path, "of a process that was killed", now=now)


def _asides(folder: Path) -> Iterator[Path]:
    """Temporary files and folders at any depth."""
    for parent, folders, names in os.walk(folder):
        yield from (Path(parent, name) for name in [*folders, *names] if _is_aside(name))
        folders[:] = [name for name in folders if not _is_aside(name)]


def _outputs(stage: StageDir) -> Iterator[Path]:
    """What a program of the user's wrote and was not published: its attempt is over, and the next starts empty."""
    yield from (path for number in stage.attempts() if (path := stage.attempt(number).output).exists())
    if stage.result.artifact.exists():
        yield from (path for path in (stage.output_finished, stage.output_kept) if path.exists())


def _is_aside(name: str) -> bool:
    return name.startswith(".") and (name.endswith(_ASIDE) or name.startswith(".doctor-"))


def _codes(store: Store, roots: Roots, *, now: float) -> Iterator[Garbage]:
    for path in _entries(store.codes):
        if not path.name.startswith(".") and digest_of(path) not in roots.codes:
            yield from _old("code", path, "sources that nothing runs from", now=now, age_s=CODE_AGE_S)


def _trash(store: Store) -> Iterator[Garbage]:
    for path in _entries(store.trash):
        yield _measured("trash", path, "an earlier gc was interrupted")


def _old(
    kind: str, path: Path, why: str, *, now: float, stage: str = "", age_s: float = LEFTOVER_AGE_S
) -> Iterator[Garbage]:
    with contextlib.suppress(FileNotFoundError):
        if now - path.lstat().st_mtime >= age_s:
            yield _measured(kind, path, why, stage=stage)


def _measured(kind: str, path: Path, why: str, *, stage: str = "") -> Garbage:
    size, count = measure(path)
    return Garbage(kind, path, why, stage, size, count, changed_ns(path))


def changed_ns(path: Path) -> int:
    """When a file, or the list of names in a folder, was changed last; 0 where there is none."""
    try:
        return path.lstat().st_mtime_ns
    except FileNotFoundError:
        return 0


def measure(path: Path) -> tuple[int, int]:
    """Bytes and files below a path."""
    if not path.is_dir() or path.is_symlink():
        with contextlib.suppress(FileNotFoundError):
            return path.lstat().st_size, 1
        return 0, 0
    size = count = 0
    for parent, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += Path(parent, name).lstat().st_size
                count += 1
    return size, count


def _entries(folder: Path) -> list[Path]:
    return [folder / name for name in records.names(folder)]
