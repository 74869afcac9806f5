"""Removes garbage so that neither a kill at any instruction nor a submit at the same moment costs a wanted result.

    1  look again at what must stay
    2  rename to trash/<id>/content; trash/<id>/origin, written before, says where it was
    3  look again: what was claimed meanwhile is put back
    4  rename trash/<id> to trash/<id>.doomed: decided
    5  remove trash/<id>.doomed

Done for a few things at a time, so that 2 and 3 are close together. A gc that was killed before step 4 is taken up by
the next one, which puts back what must stay by then; after it, its removal is finished. A submit that looks at the
store between 2 and 3 finds the stage gone and makes it again; then what step 3 would put back has no place any more,
and goes.
"""

import contextlib
import itertools
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs import files
from stx import records
from stx.coordinator.garbage import Garbage, changed_ns, is_finished
from stx.coordinator.roots import PINNED, Roots
from stx.coordinator.snapshot import digest_of
from stx.errors import StoreError
from stx.paths import StageDir, Store

DOOMED = ".doomed"
FROM = frozenset({"stages", "experiments", "code"})
AT_ONCE = 64


@dataclass
class Swept:
    """What became of it. `kept`: it was claimed meanwhile; `failed`: the system refused, with its words."""

    removed: list[Garbage] = field(default_factory=list)
    kept: list[Garbage] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)


def sweep(store: Store, found: Sequence[Garbage], look: Callable[[], Roots]) -> Swept:
    """Remove what was found, except what must stay by now as `look` says."""
    swept = Swept()
    resume(store, look())
    swept.removed += [one for one in found if one.kind == "trash"]
    rest = [one for one in found if one.kind != "trash"]
    for first in range(0, len(rest), AT_ONCE):
        _sweep(store, rest[first : first + AT_ONCE], look=look, swept=swept)
    swept.failed += finish(store)
    return swept


def _sweep(store: Store, few: Sequence[Garbage], *, look: Callable[[], Roots], swept: Swept) -> None:
    aside: list[tuple[Garbage, Path]] = []
    before = look()
    for one in few:
        if not may_go(one, before) or changed_ns(one.path) != one.changed_ns:
            swept.kept.append(one)
            continue
        try:
            aside.append((one, _set_aside(store, one.path)))
        except OSError as error:
            swept.failed.append((one.path, error.strerror or str(error)))
    after = look()
    for one, entry in aside:
        if may_go(one, after) or not _put_back(store, entry):
            _doom(entry)
            swept.removed.append(one)
        else:
            swept.kept.append(one)


def resume(store: Store, roots: Roots) -> None:
    """Decide about what an interrupted gc had set aside: what must stay now goes back to its place."""
    for entry in _entries(store, doomed=False):
        if not (_must_stay(entry, roots) and _put_back(store, entry)):
            _doom(entry)


def _must_stay(entry: Path, roots: Roots) -> bool:
    """By where it was: stages/<name>/..., experiments/<name>, code/<digest>."""
    origin = _origin(entry)
    if origin is None:
        return False
    where, name = origin.parts[:2]
    return where == "experiments" or name in roots.stages or digest_of(Path(name)) in roots.codes


def finish(store: Store) -> list[tuple[Path, str]]:
    """Remove what is doomed, and the trash itself when it is empty; what cannot be removed, with the reason."""
    failed: list[tuple[Path, str]] = []
    for entry in _entries(store, doomed=True):
        try:
            shutil.rmtree(entry)
        except FileNotFoundError:  # another gc removes it, too
            continue
        except OSError as error:
            failed.append((entry, error.strerror or str(error)))
    if not list(itertools.chain(_entries(store, doomed=True), _entries(store, doomed=False))) and store.trash.exists():
        with contextlib.suppress(OSError):  # another member's, or one more gc has begun
            store.trash.rmdir()
    return failed


def may_go(one: Garbage, roots: Roots) -> bool:
    """Whether it is still garbage by these roots."""
    match one.kind:
        case "stage":
            return one.stage not in roots.stages
        case "code":
            return digest_of(one.path) not in roots.codes
        case "checkpoint":
            stage, wants = StageDir(one.path.parent.parent), roots.wants.get(one.stage, frozenset())
            spared = one.stage in roots.alive or roots.stages.get(one.stage) == PINNED
            return not spared and is_finished(stage, kind=one.stage.rpartition("-")[0], wants=wants)
        case _:
            return one.stage not in roots.alive


def _set_aside(store: Store, path: Path) -> Path:
    entry = store.trash / secrets.token_hex(8)
    with records.no_links():
        files.make_dir(store.trash)
    entry.mkdir()
    files.write(entry / "origin", os.fsencode(path.relative_to(store.root)))
    try:
        path.rename(entry / "content")
    except OSError:
        _doom(entry)
        raise
    files.fsync_dir(path.parent)
    return entry


def _put_back(store: Store, entry: Path) -> bool:
    """False: there is nothing to put back, or its place was taken meanwhile."""
    origin, content = _origin(entry), entry / "content"
    if origin is None or not os.path.lexists(content):
        return False
    place = store.root / origin
    if os.path.lexists(place):
        return False
    content.rename(place)
    files.fsync_dir(place.parent)
    _doom(entry)
    return True


def _origin(entry: Path) -> Path | None:
    """Where it was, relative to the store; StoreError for a place that no gc takes anything from."""
    with records.no_links():
        data = files.read(entry / "origin")
    if data is None:
        return None
    origin = Path(os.fsdecode(data))
    if len(origin.parts) < 2 or origin.parts[0] not in FROM or ".." in origin.parts:
        what = f"names a place outside the store's folders: {origin}"
        raise StoreError(what, where=str(entry / "origin"), hint="stx did not write it; remove that folder")
    return origin


def _doom(entry: Path) -> None:
    if entry.exists():
        entry.rename(entry.with_name(entry.name + DOOMED))
        files.fsync_dir(entry.parent)


def _entries(store: Store, *, doomed: bool) -> Iterator[Path]:
    for name in records.names(store.trash):
        if name.endswith(DOOMED) is doomed:
            yield store.trash / name
