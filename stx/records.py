"""Canonical JSON records on top of jobs/files.py: what is hashed, what is published, what is appended.

One value has one encoding: sorted keys, no spaces, ASCII, finite numbers. Records are small; big data is in payload
files.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs import files
from stx.errors import StoreError


def dumps(value: Any) -> bytes:
    """Canonical bytes of a JSON value. A NaN, an infinity or a foreign type is our own mistake and raises."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True).encode()


def digest(value: Any) -> str:
    """sha256 of the canonical bytes, in hex."""
    return hashlib.sha256(dumps(value)).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read(path: Path) -> dict[str, Any]:
    """The record at `path`; StoreError names a missing or malformed one."""
    record = find(path)
    if record is None:
        raise StoreError("no such record", where=str(path))
    return record


def find(path: Path) -> dict[str, Any] | None:
    """The record at `path`, or None if there is no such file."""
    with no_links():
        data = files.read(path)
    if data is None:
        return None
    return _parse(data, where=str(path))


def write(path: Path, record: dict[str, Any]) -> None:
    """Replace the record at `path`."""
    with no_links():
        files.write(path, dumps(record) + b"\n")


def publish(path: Path, record: dict[str, Any]) -> bool:
    """Publish a record by link(2). True: ours stands; False: another one was first."""
    with no_links():
        return files.publish(path, dumps(record) + b"\n")


def append(path: Path, record: dict[str, Any]) -> None:
    """Append one record to a .jsonl file."""
    with no_links():
        files.append(path, dumps(record))


def names(folder: Path) -> list[str]:
    """The names in a directory of a store, sorted; none if it does not exist."""
    with no_links():
        return sorted(files.names(folder))


@contextlib.contextmanager
def no_links() -> Iterator[None]:
    """Around whatever reads or writes in a store: a symbolic link there is a StoreError that names it."""
    try:
        yield
    except files.SymlinkError as error:
        hint = "look where it leads and who made it (ls -l), and remove it; the store's own directory may be a link"
        raise StoreError(str(error.strerror), where=str(error.filename), hint=hint) from error


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a .jsonl file, in order. One unterminated last line (a kill while appending) is ignored."""
    data = files.read(path) or b""
    lines = data.split(b"\n")[:-1]
    for number, line in enumerate(lines, start=1):
        yield _parse(line, where=f"{path}:{number}")


def load_lines(path: Path) -> list[dict[str, Any]]:
    """The same, all at once and several times faster, for long files."""
    lines = (files.read(path) or b"").split(b"\n")[:-1]
    with contextlib.suppress(ValueError):
        found = json.loads(b"[" + b",".join(lines) + b"]")
        if len(found) == len(lines) and all(isinstance(one, dict) for one in found):
            whole: list[dict[str, Any]] = found
            return whole
    return list(read_lines(path))  # names the line that is wrong


@contextlib.contextmanager
def understood(path: Path) -> Iterator[None]:
    """Around whatever makes sense of a record: one that lacks something is a StoreError that names its file."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"not what stx writes here ({type(error).__name__}: {error})"
        raise StoreError(what, where=str(path), hint=_DAMAGED) from error


_DAMAGED = "the file was not written by stx, or the disk damaged it; restore it, or move its folder away"


def _parse(data: bytes, *, where: str) -> dict[str, Any]:
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"not JSON: {error}", where=where, hint=_DAMAGED) from error
    if not isinstance(record, dict):
        raise StoreError(f"a record is a JSON object, this is {type(record).__name__}", where=where, hint=_DAMAGED)
    return record
