"""What a coordinator was told: events-<token>.jsonl, one file per lease, replayed in the order of tokens.

A line is {"at": wall-clock seconds, for people only, "event": ...}. Only events that changed the state are written. A
kill leaves at most one unterminated last line, which readers ignore; a failed append (a full disk) is cut off again and
written with the next one, so that a line is never glued to a torn one.
"""

import contextlib
import errno
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jobs import files
from stx import records
from stx.coordinator.events import Event, dump, parse
from stx.coordinator.state import State, new
from stx.coordinator.transitions import step
from stx.errors import StoreError
from stx.paths import ExperimentDir
from stx.spec import Graph

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Journal:
    """The one writer of events-<token>.jsonl."""

    def __init__(self, experiment: ExperimentDir, token: int) -> None:
        self._path = experiment.events(token)
        self._unwritten: list[bytes] = []
        self._length = 0

    def append(self, events: Sequence[Event]) -> bool:
        """Append events in one write. False: the disk is full, and they will be written with the next ones."""
        now = time.time()
        self._unwritten += [records.dumps({"at": now, "event": dump(event)}) for event in events]
        if not self._unwritten:
            return True
        block = b"\n".join(self._unwritten)
        try:
            files.append(self._path, block)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._cut()
            return False
        self._length += len(block) + 1
        self._unwritten.clear()
        return True

    def _cut(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.truncate(self._path, self._length)


def entries(path: Path, *, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The whole lines after `offset`, and the offset after the last of them."""
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            data = stream.read()
    except FileNotFoundError:
        return [], offset
    end = data.rfind(b"\n") + 1
    return [_entry(line, path=path) for line in data[:end].splitlines()], offset + end


def events(experiment: ExperimentDir) -> Iterator[Event]:
    """Everything that was journaled, in order."""
    for token in experiment.tokens():
        path = experiment.events(token)
        for entry in entries(path)[0]:
            yield _event(entry, path=path)


class Reader:
    """Folds a journal that others write; `refresh` reads only what came since."""

    def __init__(self, experiment: ExperimentDir, graph: Graph) -> None:
        self._experiment = experiment
        self._offset = 0
        self._state = new(graph)
        self.token = 0
        self.at: float | None = None

    def refresh(self) -> State:
        """The state after everything journaled so far; `token` and `at` (wall clock) are those of the last entry."""
        for token in self._experiment.tokens():
            if token > self.token:
                self.token, self._offset = token, 0
            if token == self.token:
                fresh, self._offset = entries(self._experiment.events(token), offset=self._offset)
                self._fold(fresh, path=self._experiment.events(token))
        return self._state

    def _fold(self, fresh: Iterable[dict[str, Any]], *, path: Path) -> None:
        for entry in fresh:
            self._state, _ = step(self._state, _event(entry, path=path))
            self.at = float(entry["at"])


def _event(entry: dict[str, Any], *, path: Path) -> Event:
    with records.understood(path):
        return parse(entry["event"])


def _entry(line: bytes, *, path: Path) -> dict[str, Any]:
    try:
        entry = json.loads(line)
        if isinstance(entry, dict) and "at" in entry and "event" in entry:
            return entry
    except ValueError:
        pass
    raise StoreError(
        "a journal line that stx did not write", where=str(path), hint="the disk damaged it; remove the line"
    )
