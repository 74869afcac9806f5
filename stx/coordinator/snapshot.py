"""The sources that attempts run from: <store>/code/<digest>/, so that an edit does not reach into a running experiment.

The digest covers every source file of stx and jobs: code, cluster files, the report's templates. The science digest
covers only what decides the numbers: worker, model, flow, alignment, data, evaluation, times.py and the versions of
torch and deepspeed; a checkpoint of another one is refused.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import jobs
import stx
from jobs import files
from stx import records
from stx.errors import StoreError
from stx.paths import Store

SCIENCE = ("worker/", "model/", "flow/", "alignment/", "data/", "evaluation/", "times.py")
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
    path = store.code(digest)
    if not path.exists():
        _copy(sources, path)
    with contextlib.suppress(PermissionError):  # another user's copy
        os.utime(path)  # "used now": what was used lately stays, also before a lease or an attempt names it
    _verify(path, hashes)
    return Code(digest=digest, science_digest=science_digest(hashes), path=path)


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
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = files.new_temp(path)
    try:
        for name, data in sources.items():
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            (aside / name).write_bytes(data)
        aside.rename(path)
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)
        if not path.exists():
            raise
    files.fsync_dir(path.parent)


def _verify(path: Path, hashes: dict[str, str]) -> None:
    for name, expected in hashes.items():
        data = files.read(path / name)
        if data is None or hashlib.sha256(data).hexdigest() != expected:
            raise StoreError(
                f"the copy of {name} in the store is not what its digest says",
                where=str(path),
                hint="remove that folder; it is copied again at the next submit",
            )
