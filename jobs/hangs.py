"""Hangs: what the three who look for them share. Standard library only.

    1  jobs/watchdog.py, a thread in the rank: its heart stood still for its phase's limit. It leaves hang.json, the
       stacks of all its threads and its outcome (HANG), and ends its process.
    2  jobs/guard.py, in the supervisor: the watchdog itself stood still for that limit and GRACE_S more. So it is with
       a rank that was stopped (SIGSTOP), or that hangs in C code which holds the interpreter's lock.
    3  the coordinator: the heartbeat in the store stands still (stx/coordinator/hearts.py).

Nobody compares clocks. Each counts its own looks, as many seconds as lie between two of them by intent: a process that
was stopped and continued, or starved, has counted one look and not the hour. And it counts only what a write to the
store, which it tries itself, has proven: where the store stalls, the count stalls with it, and nothing is ended.

    attempt dir:  hang.json        {"rank", "phase", "limit_s", "message"}: who hung first; its siblings on other
                                   machines find it and end themselves
                  stacks-<r>.txt   the stacks of all threads of rank r at that moment
"""

import contextlib
import json
import math
import mmap
import os
import struct
import threading
import time
from pathlib import Path
from typing import NamedTuple

from jobs import files, typed
from jobs.files import AttemptDir, Unreadable

GRACE_S = 5.0  # the watchdog comes first: it alone can say what it saw
PIECES = 20  # a limit is counted in so many pieces, each proven by a write
QUICK_S = 1.0  # a write that takes less is no stall, however short the piece

_LINE = struct.Struct("<dd16s")
_TICKS = struct.Struct("<Q")
_SLOT = 64  # bytes of a rank: ticks, then the line


class Hang(NamedTuple):
    """Rank `rank` made no progress for `limit_s` seconds in `phase`."""

    rank: int
    phase: str
    limit_s: float
    message: str


def publish(attempt: AttemptDir, hang: Hang) -> None:
    """Say who hung, for the ranks of other machines; the first stands. A full disk keeps nobody from ending."""
    with contextlib.suppress(OSError):
        files.publish(attempt.hang, json.dumps(hang._asdict()).encode() + b"\n")


def read(attempt: AttemptDir) -> Hang | None:
    """Who hung first, if anybody did. What is no such record says nothing: nobody is ended for it."""
    try:
        data = files.read(attempt.hang)
        said = {} if data is None else typed.mapping(data)
        return Hang(**{name: typed.matching(kind, said[name]) for name, kind in Hang.__annotations__.items()})
    except (Unreadable, ValueError, KeyError):
        return None


class Standstill:
    """Seconds without progress, in which the store is known to have answered. `waits`: a look may take as long as the
    store stalls. Else the write is another thread's, and its result the next look's.
    """

    def __init__(self, folder: Path, *, waits: bool) -> None:
        self._folder = folder
        self._waits = waits
        self._proof: _Proof | None = None  # the write that is under way
        self._unproven = 0.0
        self.seconds = 0.0

    def reset(self) -> None:
        """There was progress."""
        self._unproven = self.seconds = 0.0

    def add(self, seconds: float, *, limit: float) -> None:
        """One more look without progress. While the store stalls, it counts for nothing."""
        if self._proof is not None:
            if self._proof.is_alive():
                return
            self._settle(self._proof)
        self._unproven += seconds
        if self._unproven < limit / PIECES:
            return
        proof = _Proof(self._folder)
        if self._waits:
            proof.run()
            self._settle(proof)
            return
        with contextlib.suppress(RuntimeError):  # no room for a thread: the next look tries again
            proof.start()
            self._proof = proof

    def _settle(self, proof: "_Proof") -> None:
        if proof.took_s < max(self._unproven, QUICK_S):
            self.seconds += self._unproven
        self._proof, self._unproven = None, 0.0


class _Proof(threading.Thread):
    """One write to the store, and how long it took; in this thread by `run`, in one of its own by `start`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self._folder = folder
        self.took_s = math.inf

    def run(self) -> None:
        began = time.monotonic()
        _write(self._folder)
        self.took_s = time.monotonic() - began


def _write(folder: Path) -> None:
    """A small write to the store. An error is an answer, too."""
    with contextlib.suppress(OSError):
        os.unlink(files.write_temp(folder / "probe", [b"\n"]))  # noqa: PTH108 - as in files: one kind of call


class Line(NamedTuple):
    """What a watchdog says of its rank: `ticks` counts its looks (0: it has not begun), `left_s` is what is left of the
    limit of its phase.
    """

    ticks: int
    left_s: float
    limit_s: float
    phase: str


class Board:
    """Memory that a supervisor shares with its ranks, a line for each. No store, no pipe: nothing there can stall."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, 0)

    @staticmethod
    def create(ranks: int) -> int:
        """Memory for so many ranks: a descriptor that children inherit."""
        descriptor = os.memfd_create("stx-board", flags=0)
        os.ftruncate(descriptor, ranks * _SLOT)
        return descriptor

    def write(self, rank: int, line: Line) -> None:
        """Replace a rank's line; the ticks last, so that who sees new ticks sees what belongs to them."""
        words = _LINE.pack(line.left_s, line.limit_s, line.phase.encode()[:16])
        start = rank * _SLOT
        self._memory[start + _TICKS.size : start + _TICKS.size + _LINE.size] = words
        self._memory[start : start + _TICKS.size] = _TICKS.pack(line.ticks)

    def read(self, rank: int) -> Line:
        """A rank's line."""
        start = rank * _SLOT
        (ticks,) = _TICKS.unpack(self._memory[start : start + _TICKS.size])
        left, limit, phase = _LINE.unpack(self._memory[start + _TICKS.size : start + _TICKS.size + _LINE.size])
        return Line(ticks, left, limit, phase.rstrip(b"\0").decode(errors="replace"))
