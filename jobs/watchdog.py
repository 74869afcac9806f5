"""The worker's own watchdog: a thread that ends this rank when its heart stands still for its phase's limit. Standard
library only.

It costs the work nothing: the heart counts in memory, and the thread looks once a second. Time in which a heartbeat is
being written does not count, nor time in which the store does not answer (jobs/hangs.py). It also looks around: where
another rank has hung, this one leaves its stacks and ends; where the supervisor of several ranks is gone, so that a
rank which dies would take nobody along, it asks its own rank to save and leave.

A timer in C (faulthandler.dump_traceback_later) would see a hang that holds the interpreter's lock. It would also end
every process that was stopped for longer than the limit in the moment it is continued, healthy as it is. So that hang
is the supervisor's to see (jobs/guard.py).
"""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from jobs import files, hangs, runtime
from jobs.files import AttemptDir
from jobs.hangs import Hang, Line, Standstill
from jobs.runtime import Heart
from jobs.spec import Cause, Result

LOOK_AROUND = 5  # ticks: a look at the store costs its server something, and there are many ranks


def start(attempt_dir: Path, heart: Heart, *, limits: Mapping[str, float], every_s: float = 1.0) -> None:
    """Start the thread. `limits` in seconds, by phase; `other` is for those that are not named."""
    watchdog = _Watchdog(AttemptDir(attempt_dir), heart, limits, every_s)
    threading.Thread(target=watchdog.run, name="watchdog", daemon=True).start()


class _Watchdog:
    """One rank's watchdog. Everything happens in its own thread."""

    def __init__(self, attempt: AttemptDir, heart: Heart, limits: Mapping[str, float], every_s: float) -> None:
        self._attempt = attempt
        self._heart = heart
        self._limits = limits
        self._every_s = every_s
        self._ticks = 0
        self._seen = heart.counter
        self._still = Standstill(attempt.path, waits=True)

    def run(self) -> None:
        """Until the end of the process."""
        while True:
            self._tick()
            time.sleep(self._every_s)
            if runtime.world_size() > 1:
                self._look_around()
            self._look()

    def _tick(self) -> None:
        """Tell the supervisor that we look, and how long we still would."""
        self._ticks += 1
        limit = self._limit()
        runtime.tell(Line(self._ticks, limit - self._still.seconds, limit, self._heart.phase))

    def _look(self) -> None:
        if self._heart.counter != self._seen:
            self._seen = self._heart.counter
            self._still.reset()
        elif not self._heart.writing:
            self._still.add(self._every_s, limit=self._limit())
            if self._still.seconds >= self._limit() and self._heart.counter == self._seen:
                self._hung()

    def _limit(self) -> float:
        return self._limits.get(self._heart.phase, self._limits["other"])

    def _hung(self) -> NoReturn:
        rank, phase, limit = runtime.rank(), self._heart.phase, self._limit()
        stacks = self._attempt.stacks(rank)
        message = (
            f"rank {rank} made no progress in phase {phase} for {limit:g} s, its limit (hang_after_s.{phase}); "
            f"the stacks of all its threads: {stacks}"
        )
        hangs.publish(self._attempt, Hang(rank, phase, limit, message))
        self._end(message)

    def _look_around(self) -> None:
        if runtime.is_orphan():
            runtime.request_stop()
        if self._ticks % LOOK_AROUND == 0 and (hang := _found(self._attempt)) is not None:
            self._end(f"ended because another rank hung: {hang.message}")

    def _end(self, message: str) -> NoReturn:
        try:
            _dump(self._attempt.stacks(runtime.rank()))
            runtime.finish(self._attempt.path, runtime.rank(), Result.FAILED, Cause.HANG, message)
        finally:
            os._exit(1)


def _found(attempt: AttemptDir) -> Hang | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        return hangs.read(attempt)
    return None


def _dump(path: Path) -> None:
    """The stacks of all threads; to the log where there is a file already (the first say most), or no room for one."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, files.MODE)
    except OSError:
        descriptor = sys.stderr.fileno()
    faulthandler.dump_traceback(file=descriptor, all_threads=True)
