"""The sources that attempts run from: <store>/code/<digest>/, so that an edit does not reach into a running experiment.

The digest covers every source file of stx and jobs: code, cluster files, the report's templates. The science digest
covers only what decides the numbers: worker, model, flow, alignment, data, evaluation, times.py and the versions of
torch and deepspeed; a checkpoint of another one is refused.

Whoever can write to a copy runs code as whoever runs from it. So everybody runs from a copy of his own (or root's) that
only he can write: a second user's of the same sources is <digest>-<his number>. In a store that a group shares, the
directory of the copies is sticky: members add theirs, and cannot rename another's away.
"""

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import jobs
import stx
from jobs import files
from stx import records, sharing
from stx.errors import StoreError
from stx.paths import Store

SCIENCE = ("worker/", "model/", "flow/", "alignment/", "data/", "evaluation/", "times.py")
ROOT = 0
SUFFIXES = frozenset({".py", ".yaml", ".j2", ".css"})


@dataclass(frozen=True)
class Code:
    """A snapshot: `path` goes onto PYTHONPATH."""

    digest: str
    science_digest: str
    path: Path


def snapshot(store: Store) -> Code:
    """Copy the running sources into the store unless they are there; StoreError when what is there differs."""
    sources = _running()
    hashes = _hashes(sources)
    digest = records.digest(hashes)
    _make_codes(store)
    me = sharing.my_number(store.codes)
    path = store.code(digest)
    if os.path.lexists(path) and path.lstat().st_uid not in (me, ROOT):
        path = store.code(f"{digest}-{me}")
    if not os.path.lexists(path):
        _copy(sources, path)
    _refuse_foreign(path, me=me)
    with contextlib.suppress(PermissionError):  # root's copy
        os.utime(path)  # "used now": what was used lately stays, also before a lease or an attempt names it
    _verify(path, hashes)
    return Code(digest=digest, science_digest=science_digest(hashes), path=path)


def planned(store: Store) -> Code:
    """What `snapshot` would copy, and to where; nothing is written."""
    hashes = _hashes(_running())
    digest = records.digest(hashes)
    return Code(digest=digest, science_digest=science_digest(hashes), path=store.code(digest))


def digest_of(copy: Path) -> str:
    """The digest of the sources in a copy."""
    return copy.name.partition("-")[0]


def running_science() -> str:
    """The science digest of the running sources."""
    return science_digest(_hashes(_running()))


def science_digest(hashes: dict[str, str]) -> str:
    """Digest of what decides the numbers. No torch is imported to learn its version."""
    prefixes = tuple(f"stx/{name}" for name in SCIENCE)
    science = {name: value for name, value in hashes.items() if name.startswith(prefixes)}
    return records.digest({"sources": science, "versions": {name: _version(name) for name in ("torch", "deepspeed")}})


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _running() -> dict[str, bytes]:
    return _sources(Path(jobs.__file__).parent) | _sources(Path(stx.__file__).parent)


def _hashes(sources: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in sources.items()}


def _sources(package: Path) -> dict[str, bytes]:
    found = sorted(path for path in package.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    return {str(path.relative_to(package.parent)): path.read_bytes() for path in found}


def _copy(sources: dict[str, bytes], path: Path) -> None:
    """Write aside, then rename the whole folder. Whoever renames second finds the same content there."""
    aside = files.new_temp(path)
    umask = os.umask(0o077)
    os.umask(umask | 0o022)  # also where the rest of the store is writable by a group
    try:
        for name, data in sources.items():
            # Python makes this one by the umask of whoever runs from the copy, and a group might write there.
            (aside / name).parent.joinpath("__pycache__").mkdir(parents=True, exist_ok=True)
            (aside / name).write_bytes(data)
        aside.rename(path)
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)
        if not path.exists():
            raise
    finally:
        os.umask(umask)
    files.fsync_dir(path.parent)


def _make_codes(store: Store) -> None:
    """The directory of all copies; where a group may write there, it is sticky."""
    with records.no_links():
        files.make_dir(store.codes)
    status = store.codes.stat()
    if not status.st_mode & stat.S_IWGRP or status.st_mode & stat.S_ISVTX:
        return
    try:
        store.codes.chmod(stat.S_IMODE(status.st_mode) | stat.S_ISVTX)
    except PermissionError as error:
        owner = sharing.user_name(status.st_uid)
        what = "its group may rename the sources that your jobs run from"
        raise StoreError(what, where=str(store.codes), hint=f"{owner}, whose folder it is: chmod +t") from error


def _refuse_foreign(path: Path, *, me: int) -> None:
    """StoreError if anyone else could have changed what lies in a copy: its sources, or byte code beside them."""
    inside = [Path(parent, name) for parent, folders, names in os.walk(path) for name in [*folders, *names]]
    for one in [path, *inside]:
        status = one.lstat()
        others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if status.st_uid not in (me, ROOT) or others or stat.S_ISLNK(status.st_mode):
            raise StoreError(
                f"others may have changed it (mode {stat.S_IMODE(status.st_mode):o}, of "
                f"{sharing.user_name(status.st_uid)}), and jobs would run it as you",
                where=str(one),
                hint=f"remove {path}; it is copied again at the next submit",
            )


def _verify(path: Path, hashes: dict[str, str]) -> None:
    for name, expected in hashes.items():
        data = files.read(path / name)
        if data is None or hashlib.sha256(data).hexdigest() != expected:
            raise StoreError(
                f"the copy of {name} in the store is not what its digest says",
                where=str(path),
                hint="remove that folder; it is copied again at the next submit",
            )
