"""The store: what its file system can do, how much room it has, and whether its records can be read.

Everything is tried out in a folder of its own that is removed again; where there is no store yet, in the nearest folder
above that exists.
"""

import contextlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from jobs import files
from stx import records, sharing
from stx.coordinator import inbox, lease
from stx.coordinator.prepare import FORMAT
from stx.coordinator.status import Observer
from stx.errors import StoreError
from stx.paths import Store
from stx.report.words import plural, size
from stx.verbs.check import Check, fail, good, warn
from stx.verbs.select import load_graph

LITTLE_BYTES = 10 << 30
TOO_LITTLE_BYTES = 100 << 20
FEW_FILES = 10_000
SLOW_S = 0.1
WRITES = 10
SKEW_S = 5.0
IN_MEMORY = frozenset({"tmpfs", "ramfs"})
UNTRIED = frozenset({"nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "9p", "fuse", "ceph"})
ELSEWHERE = "put the store on a local disk, NFS or Lustre: --store DIR or $STX_STORE"


def store(place: Store) -> Iterator[Check]:
    """All checks of a store."""
    there = next(path for path in (place.root, *place.root.parents) if path.exists())
    if not there.is_dir():
        yield fail("store", f"{there} is a file, not a folder", "choose another --store")
        return
    folder = nearest(place.root)
    if folder == place.root:
        yield good("store", str(place.root))
        yield from shared_with(place)
    else:
        yield good("store", f"{place.root} will be made by the first submit, below {folder}")
    if told := sharing.exposed(place):
        yield warn("above the store", *told)
    probe = folder / f".doctor-{secrets.token_hex(4)}"
    try:
        probe.mkdir()
    except OSError as error:
        yield fail("store", f"{folder} cannot be written: {error.strerror}", "choose another --store, or ask its owner")
        return
    try:
        yield from abilities(probe)
    finally:
        shutil.rmtree(probe, ignore_errors=True)
    yield from room(folder)
    yield from file_system(folder, mounts=files.read(Path("/proc/self/mountinfo")) or b"")
    yield from contents(place)


def nearest(root: Path) -> Path:
    """The store, or the folder above in which it would be made."""
    return next(path for path in (root, *root.parents) if path.is_dir())


def abilities(probe: Path) -> Iterator[Check]:
    """Write, replace, link, append; and how long a durable write takes."""
    try:
        began = time.monotonic()
        for number in range(WRITES):
            files.write(probe / "record", str(number).encode())
        each = (time.monotonic() - began) / WRITES
    except OSError as error:
        yield fail("durable writes", f"write, fsync or rename failed: {error.strerror}", ELSEWHERE)
        return
    words = f"{1000 * each:.1f} ms for one write, fsync and rename"
    yield good("durable writes", words) if each < SLOW_S else warn("durable writes", words, "a slow disk: poll_s >= 10")
    yield _links(probe)
    yield _append(probe)
    skew = (probe / "record").stat().st_mtime - time.time()
    if abs(skew) > SKEW_S:
        words = f"the file server's clock differs by {skew:.0f} s"
        yield warn("clock", words, "nothing acts on it; ages in `stx status` are off by as much")


def _links(probe: Path) -> Check:
    """First wins: the second link to a name must fail."""
    try:
        first, second = files.publish(probe / "claim", b"1"), files.publish(probe / "claim", b"2")
    except OSError as error:
        return fail("hard links", f"none here: {error.strerror}", ELSEWHERE)
    if (first, second) == (True, False) and files.read(probe / "claim") == b"1":
        return good("hard links", "the first wins")
    return fail("hard links", "two links to one name were both made: claims would not be safe", ELSEWHERE)


def _append(probe: Path) -> Check:
    for line in (b"1", b"2"):
        files.append(probe / "lines", line)
    if files.read(probe / "lines") == b"1\n2\n":
        return good("append", "in order")
    return fail("append", "appended lines do not come back", ELSEWHERE)


def shared_with(place: Store) -> Iterator[Check]:
    """Who may write here, and whether that is safe and complete."""
    try:
        sharing.open_store(place)
    except StoreError as error:
        yield fail("sharing", f"{error.where}: {error.what}", error.hint or "")
        return
    status = place.root.stat()
    owner, group = sharing.user_name(status.st_uid), sharing.group_name(status.st_gid)
    if not files.is_shared(status.st_mode):
        if status.st_mode & stat.S_IWGRP:
            words = f"group {group} may write here, but what is made here is not the group's: no setgid bit"
            yield warn("sharing", words, f"chmod g-w {place.root}; or share it: chmod 3770 {place.root}")
        else:
            yield good("sharing", f"private: {owner} writes, others read what they may")
        return
    if not status.st_mode & stat.S_ISVTX:
        words = f"shared with group {group}, whose members may rename each other's folders in it"
        yield warn("sharing", words, f"chmod +t {place.root}")
    else:
        yield good("sharing", f"shared with group {group}; what is made here is writable by it")
    old = [path for path in (place.stages, place.experiments) if path.is_dir() and not _is_shared(path)]
    if old:
        words = f"made before the store was shared: {', '.join(path.name for path in old)}"
        yield warn("sharing", words, f"chmod -R g+rwX {place.root}; find {place.root} -type d -exec chmod g+s {{}} +")


def _is_shared(path: Path) -> bool:
    return files.is_shared(path.stat().st_mode)


def room(folder: Path) -> Iterator[Check]:
    """Bytes and files that are free."""
    free = shutil.disk_usage(folder).free
    words, hint = f"{size(free)} free", "stx gc lists what may go; stx plan says what an experiment will take"
    if free < TOO_LITTLE_BYTES:
        yield fail("space", words, hint)
    elif free < LITTLE_BYTES:
        yield warn("space", words, hint)
    else:
        yield good("space", words)
    space = os.statvfs(folder)
    if space.f_files > 0 and space.f_favail < FEW_FILES:
        yield warn("files", f"room for {space.f_favail:,} more files", "free some, or ask for a larger quota")


def file_system(folder: Path, *, mounts: bytes) -> Iterator[Check]:
    """What kind it is, by the mount that the folder lies on."""
    kind = kind_of(folder.resolve(), mounts=mounts)
    if kind in IN_MEMORY:
        yield warn("file system", f"{kind}: in memory, gone after a restart", ELSEWHERE)
    elif kind.partition(".")[0] in UNTRIED:
        yield warn("file system", f"{kind}: stx is made for shared file systems, and was not tried on one", "pilot it")
    elif kind:
        yield good("file system", kind)


def kind_of(folder: Path, *, mounts: bytes) -> str:
    """The type of the last mounted file system that holds a folder (proc(5), mountinfo); "" where it is not told."""
    kind, longest = "", -1
    for line in os.fsdecode(mounts).splitlines():
        before, _, after = line.partition(" - ")
        point = Path(before.split()[4].replace("\\040", " "))
        if folder.is_relative_to(point) and len(point.parts) >= longest:
            kind, longest = after.split()[0], len(point.parts)
    return kind


def contents(place: Store) -> Iterator[Check]:
    """Records that can be read, and experiments that nobody drives."""
    try:
        record = records.find(place.record)
    except StoreError as error:
        yield fail("record", str(error.where), error.what)
        return
    if record is not None and record.get("format") != FORMAT:
        yield fail("record", f"format {record.get('format')}, this stx knows {FORMAT}", "use the stx that made it")
        return
    names = place.experiment_names()
    for name in names:
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            yield from _experiment(place, name)
    yield good("experiments", f"{len(names):,} in the store")


def _experiment(place: Store, name: str) -> Iterator[Check]:
    directory = place.experiment(name)
    try:
        graph, holder, waiting = load_graph(directory), lease.holder(directory), inbox.letters(directory)
        state = Observer(place, experiment=directory, graph=graph).state
    except StoreError as error:
        yield fail("experiments", f"{name}: {error.where}: {error.what}", error.hint or "move that file away")
        return
    if holder is not None:
        where = "here" if holder.here else f"on {holder.host}, as it says"
        yield good("lease", f"{name} is driven by process {holder.pid} {where}")
        return
    left = list(state.held())
    if left and not state.finished:
        words = f"{name}: nobody drives it, and {plural(len(left), 'job')} of it may still run"
        yield warn("lease", words, f"submit its file again ({directory.file}), or: stx cancel {name}")
    if waiting:
        words = f"{name}: {plural(len(waiting), 'command')} wait for a coordinator"
        yield warn("inbox", words, "they are carried out when its file is submitted again")
