"""What a coordinator was told: events-<token>.jsonl, one file per lease, replayed in the order of tokens.

A line is {"at": wall-clock seconds, for people only, "event": ...}. Only events that changed the state are written. A
kill leaves at most one unterminated last line, which readers ignore; a failed append (a full disk) is cut off again and
written with the next one, so that a line is never glued to a torn one.

Each file begins with an Opened, which says how far its writer had read the file before. So a coordinator that was
stopped, lost its lease and woke up may append what it likes: nobody reads it.
"""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from jobs import files
from jobs.files import Unreadable
from jobs.outcome import FULL
from stx import records
from stx.coordinator.events import Event, Opened, dump, parse
from stx.coordinator.state import State, new
from stx.coordinator.transitions import step
from stx.errors import StoreError
from stx.paths import ExperimentDir
from stx.spec import Graph

BLOCK_BYTES = 65536
LINE_BYTES = 64 << 20  # what a coordinator found of 10,000 stages when it came is one line of 3 MB


class Journal:
    """The one writer of events-<token>.jsonl."""

    def __init__(self, experiment: ExperimentDir, token: int) -> None:
        self._path = experiment.events(token)
        self._unwritten: list[bytes] = []
        self._length = 0
        self._torn = False

    def append(self, events: Sequence[Event]) -> bool:
        """Append events in one write. False: the disk is full, and they will be written with the next ones. Any other
        failure raises; a later append (the last words of a coordinator) is not glued to what it left, either.
        """
        now = time.time()
        self._unwritten += [records.dumps({"at": now, "event": dump(event)}) for event in events]
        if not self._unwritten:
            return True
        block = b"\n".join(self._unwritten)
        try:
            self._cut()
            files.append(self._path, block)
        except OSError as error:
            self._torn = True
            with contextlib.suppress(OSError):
                self._cut()
            if error.errno not in FULL:
                raise
            return False
        self._length += len(block) + 1
        self._unwritten.clear()
        return True

    def _cut(self) -> None:
        """Take away what a failed append left."""
        if self._torn:
            with contextlib.suppress(FileNotFoundError):
                files.cut(self._path, self._length)
            self._torn = False


@dataclass(frozen=True)
class Part:
    """One file of a journal, and how many of its bytes count: they end with a whole line."""

    token: int
    length: int


NOTHING_READ = Part(0, 0)


def parts(experiment: ExperimentDir, *, since: int = 0) -> list[Part]:
    """What counts of a journal, oldest first; only from the file that was the newest when token `since` was read."""
    tokens = experiment.tokens()
    newest = (Part(token, _length(experiment.events(token))) for token in reversed(tokens))
    part = next((one for one in newest if one.length), NOTHING_READ)
    found: list[Part] = []
    while part.length:
        found.append(part)
        if part.token <= since:
            break
        before = _read_before(experiment.events(part.token), token=part.token)
        if before is None:  # it does not say: all that is older counts
            older = [Part(token, _length(experiment.events(token))) for token in tokens if since <= token < part.token]
            return older + found[::-1]
        if before.length and before.token not in tokens:
            raise _damaged(experiment.events(part.token))
        part = before
    return found[::-1]


def events(experiment: ExperimentDir, counted: Iterable[Part] | None = None) -> Iterator[Event]:
    """Everything that was journaled and counts, in order."""
    for part in parts(experiment) if counted is None else counted:
        path = experiment.events(part.token)
        for _, event in _entries(path, 0, part.length):
            yield event


class Reader:
    """Folds a journal that others write; `refresh` reads only what came since. `at`: wall clock of the last entry."""

    def __init__(self, experiment: ExperimentDir, graph: Graph) -> None:
        self._experiment = experiment
        self._graph = graph
        self._state = new(graph)
        self._read = NOTHING_READ
        self.at: float | None = None

    def refresh(self) -> State:
        """The state after everything journaled so far."""
        counted = parts(self._experiment, since=self._read.token)
        if self._read.length and not self._goes_on(counted):
            self._state, self._read = new(self._graph), NOTHING_READ
            counted = parts(self._experiment)
        for part in counted:
            self._fold(part, begin=self._read.length if part.token == self._read.token else 0)
            self._read = part
        return self._state

    def _goes_on(self, counted: Sequence[Part]) -> bool:
        """Whether all that was read still counts."""
        return bool(counted) and counted[0].token == self._read.token and counted[0].length >= self._read.length

    def _fold(self, part: Part, *, begin: int) -> None:
        path = self._experiment.events(part.token)
        for at, event in _entries(path, begin, part.length):
            self._state, _ = step(self._state, event)
            self.at = at


def _length(path: Path) -> int:
    """Where the last whole line ends."""
    with _opened(path) as stream:
        size = end = stream.seek(0, os.SEEK_END)
        while end:
            if size - end > LINE_BYTES:
                raise _damaged(path)
            begin = max(0, end - BLOCK_BYTES)
            stream.seek(begin)
            newline = stream.read(end - begin).rfind(b"\n")
            if newline >= 0:
                return begin + newline + 1
            end = begin
    return 0


def _read_before(path: Path, *, token: int) -> Part | None:
    """How far the file before was read by the writer of this one."""
    _, event = next(_entries(path, 0, 1))
    if not isinstance(event, Opened) or event.before is None:
        return None
    before = Part(*event.before)
    if not 0 <= before.token < token or before.length < 0:
        raise _damaged(path)
    return before


def _entries(path: Path, begin: int, end: int) -> Iterator[tuple[float, Event]]:
    """What the lines that start in [begin, end) say: when (wall clock) and what; StoreError names a wrong one."""
    with _opened(path) as stream:
        stream.seek(begin)
        while begin < end and (line := stream.readline(LINE_BYTES)):
            try:
                entry = _entry(line, path=path)
            except StoreError as error:
                where = f"{path}:{_newlines(stream, begin) + 1}"
                raise StoreError(error.what, where=where, hint=error.hint) from error
            yield entry
            begin += len(line)


def _newlines(stream: BufferedReader, end: int) -> int:
    """How many lines end in the first `end` bytes."""
    stream.seek(0)
    return sum(stream.read(min(BLOCK_BYTES, end - at)).count(b"\n") for at in range(0, end, BLOCK_BYTES))


def _opened(path: Path) -> BufferedReader:
    try:
        return files.opened(path)
    except Unreadable as error:
        raise StoreError(str(error.strerror), where=str(path), hint="move it away") from error


def _entry(line: bytes, *, path: Path) -> tuple[float, Event]:
    try:
        entry = records.parse(line, where=str(path))
    except StoreError as error:
        raise _damaged(path) from error
    if type(entry.get("at")) not in (int, float) or not isinstance(entry.get("event"), dict):
        raise _damaged(path)
    with records.understood(path):
        return float(entry["at"]), parse(entry["event"])


def _damaged(path: Path) -> StoreError:
    return StoreError(
        "a journal line that stx did not write", where=str(path), hint="the disk damaged it; remove the line"
    )
