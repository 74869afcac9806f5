"""Canonical JSON records on top of jobs/files.py: what is hashed, what is published, what is appended.

One value has one encoding: sorted keys, no spaces, ASCII, finite numbers. Records are small; big data is in payload
files.

Whatever is read here, others may have written: a reader takes a plain file of at most so many bytes (its memory is at
most some 25 times that), and refuses NaN, a key given twice, and what is nested deeper than anything stx writes.
"""

import contextlib
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from jobs import files, typed
from jobs.files import Unreadable
from stx.errors import StoreError

T = TypeVar("T")

# What a record may measure. A graph of 10,000 stages has 10 MB, the index of a million cached features 80 MB.
RECORD_BYTES = files.RECORD_BYTES
GRAPH_BYTES = 128 << 20
ARTIFACT_BYTES = 64 << 20  # lists every payload file of a stage
MANIFEST_BYTES = 256 << 20  # lists every slice of every rank
INDEX_BYTES = 2 << 30  # has a checksum of every field of every sample
LINES_BYTES = 512 << 20  # numbers for plots of one attempt
MAX_DEPTH = 50
_PIECE = 256 << 10  # bytes hashed at once: they stay in the processor's cache
SAID = 300  # characters of what Python says of a wrong value


def dumps(value: Any) -> bytes:
    """Canonical bytes of a JSON value. A NaN, an infinity or a foreign type is our own mistake and raises."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True).encode()


def digest(value: Any) -> str:
    """sha256 of the canonical bytes, in hex."""
    return hashlib.sha256(dumps(value)).hexdigest()


def file_digest(path: Path, *, beat: Callable[[], None] = lambda: None) -> str:
    """sha256 of a file's bytes, in hex. `beat` is called after each piece of the reading."""
    found, piece = hashlib.sha256(), memoryview(bytearray(_PIECE))
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(piece):
            found.update(piece[:count])
            beat()
    return found.hexdigest()


def read(path: Path, *, limit: int = RECORD_BYTES) -> dict[str, Any]:
    """The record at `path`; StoreError names a missing or malformed one, or one of more than `limit` bytes."""
    record = find(path, limit=limit)
    if record is None:
        raise StoreError("No such file or directory", where=str(path))
    return record


def find(path: Path, *, limit: int = RECORD_BYTES) -> dict[str, Any] | None:
    """The record at `path`, or None if there is no such file."""
    data = _bytes(path, limit=limit)
    if data is None:
        return None
    return parse(data, where=str(path))


def text(path: Path, *, limit: int = RECORD_BYTES) -> str:
    """The text of a file in a store, whatever bytes it is made of; nothing if there is none."""
    return (_bytes(path, limit=limit) or b"").decode(errors="replace")


def load(cls: type[T], path: Path, *, limit: int = RECORD_BYTES) -> T:
    """The dataclass that is the record at `path`; StoreError names the value that is not of its field's type."""
    record = read(path, limit=limit)
    with understood(path):
        return typed.build(cls, record)


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
    for number, line in enumerate(_lines(path), start=1):
        yield parse(line, where=f"{path}:{number}")


def load_lines(path: Path) -> list[dict[str, Any]]:
    """The same, all at once and several times faster, for long files."""
    lines = _lines(path)
    with contextlib.suppress(ValueError, RecursionError):
        found = _loaded(b"[" + b",".join(lines) + b"]")
        if len(found) == len(lines) and all(isinstance(one, dict) for one in found):
            whole: list[dict[str, Any]] = found
            return whole
    return list(read_lines(path))  # names the line that is wrong


def sound_lines(path: Path) -> list[dict[str, Any]]:
    """Those lines that are records, where one that is damaged may be missed."""
    found = []
    for line in _lines(path):
        with contextlib.suppress(StoreError):
            found.append(parse(line, where=str(path)))
    return found


def _lines(path: Path) -> list[bytes]:
    return (_bytes(path, limit=LINES_BYTES) or b"").split(b"\n")[:-1]


def _bytes(path: Path, *, limit: int) -> bytes | None:
    try:
        with no_links():
            return files.read(path, limit=limit)
    except Unreadable as error:
        raise StoreError(str(error.strerror), where=str(path), hint=_DAMAGED) from error


@contextlib.contextmanager
def understood(path: Path) -> Iterator[None]:
    """Around whatever makes sense of a record: one that lacks something is a StoreError that names its file."""
    try:
        yield
    except Unreadable as error:
        raise StoreError(str(error.strerror), where=str(error.filename), hint=_DAMAGED) from error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        said = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        what = f"not what stx writes here ({said[:SAID]})"
        raise StoreError(what, where=str(path), hint=_DAMAGED) from error


_DAMAGED = "the file was not written by stx, or the disk damaged it; restore it, or move its folder away"


def parse(data: bytes, *, where: str) -> dict[str, Any]:
    """The record in some bytes; StoreError, with `where` they came from, if there is none."""
    try:
        record = _loaded(data)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"not JSON: {str(error)[:SAID]}", where=where, hint=_DAMAGED) from error
    if not isinstance(record, dict):
        raise StoreError(f"a record is a JSON object, this is {type(record).__name__}", where=where, hint=_DAMAGED)
    return record


def _loaded(data: bytes) -> Any:
    """A JSON value; ValueError or RecursionError."""
    value = _DECODER.decode(data.decode())
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return value  # as nearly all records
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _containers(outer)]
        if not level:
            return value
    raise ValueError(f"nested more than {MAX_DEPTH} deep")


def _containers(value: Any) -> list[Any]:
    """The mappings and lists right inside a value, if it is one of these."""
    inside = value.values() if type(value) is dict else value if type(value) is list else ()
    kinds = set(map(type, inside))  # a list of a million numbers is not looked through one by one
    if dict not in kinds and list not in kinds:
        return []
    return [one for one in inside if type(one) is dict or type(one) is list]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice[:80]!r} is given twice")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is no finite number")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_finite, parse_float=_finite)
