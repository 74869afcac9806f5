"""The supervisor's look at its ranks: whose watchdog stands still, and the stacks of all of them. Standard library
only.

A rank whose watchdog does not tick cannot end itself: it was stopped, hangs in C code with the interpreter's lock, or
has not begun to watch within the time it has to start. Stacks are asked for by USR1, which a handler in C answers in
the rank's log, whatever holds the lock; a stopped rank is continued for it. What a rank cannot say (it is stuck in the
kernel), the kernel says.

Nobody waits for the store here: while it stalls, the supervisor forwards signals and keeps the time limit.
"""

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from jobs import files, hangs, processes
from jobs.files import AttemptDir
from jobs.hangs import Board, Hang, Standstill

LOOK_S = 2.0
STACKS_S = 3.0  # how long ranks have to write their stacks
_SETTLED_S = 0.3


class Guard:
    """Watches the board of one supervisor. `start_limit_s`: until a watchdog ticks; None for ranks that have none."""

    def __init__(self, attempt: AttemptDir, *, ranks: int, start_limit_s: float | None) -> None:
        self._attempt = attempt
        self._start_limit_s = start_limit_s
        self.descriptor = Board.create(ranks)
        self._board = Board(self.descriptor)
        self._ticks = [0] * ranks
        self._still = [Standstill(attempt.path, waits=False) for _ in range(ranks)]
        self._due = time.monotonic() + LOOK_S

    @property
    def due(self) -> float:
        """When to look next, on the monotonic clock."""
        return self._due

    def look(self, pids: Mapping[int, int]) -> Hang | None:
        """Look at the running ranks (number -> pid) if it is time; one that hangs, the one that has for longest."""
        if time.monotonic() < self._due:
            return None
        found = [hang for number, pid in pids.items() if (hang := self._look_at(number, pid)) is not None]
        self._due = time.monotonic() + LOOK_S
        return max(found, key=lambda hang: self._still[hang.rank].seconds, default=None)

    def _look_at(self, number: int, pid: int) -> Hang | None:
        line, still = self._board.read(number), self._still[number]
        if line.ticks != self._ticks[number]:
            self._ticks[number] = line.ticks
            still.reset()
            return None
        begun = line.ticks > 0
        limit, phase = (line.limit_s, line.phase) if begun else (self._start_limit_s, "start")
        if limit is None:
            return None
        patience = max(0.0, line.left_s if begun else limit) + hangs.GRACE_S
        still.add(LOOK_S, limit=patience)
        if still.seconds < patience:
            return None
        state = processes.state(pid)
        why = "it is stopped (SIGSTOP)" if state == "T" else "it does not let its own watchdog run"
        message = (
            f"rank {number} made no progress in phase {phase} for {limit:g} s, its limit (hang_after_s.{phase}), and "
            f"{why}; the stacks of all its threads: {self._attempt.stacks(number)}"
        )
        return Hang(number, phase, limit, message)


def gather_stacks(attempt: AttemptDir, pids: Mapping[int, int]) -> None:
    """Write stacks-<rank>.txt of these running ranks (number -> pid), but for those that have written theirs. One that
    was stopped may write its own when it is continued: then what the kernel said of it stands behind that.
    """
    asked = {number: pid for number, pid in pids.items() if not attempt.stacks(number).exists()}
    sizes = {number: _size(attempt.log(number)) for number in asked}
    states = {number: _kernel_words(pid) for number, pid in asked.items()}
    for pid in asked.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR1)
            os.kill(pid, signal.SIGCONT)
    _wait_for({number: attempt.log(number) for number in asked}, sizes=sizes)
    for number in asked:
        told = _from(attempt.log(number), sizes[number]) or b"no stacks: this rank did not answer\n"
        with contextlib.suppress(OSError):  # a full disk keeps nobody from ending
            if not files.publish(attempt.stacks(number), states[number] + told):
                files.append(attempt.stacks(number), states[number].strip())


def _wait_for(logs: Mapping[int, Path], *, sizes: Mapping[int, int]) -> None:
    """Until all logs have grown and rest, or it took too long."""
    deadline, before = time.monotonic() + STACKS_S, dict(sizes)
    rests_since = time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(0.05)
        now = {number: _size(path) for number, path in logs.items()}
        if now != before:
            before, rests_since = now, time.monotonic()
        grown = all(now[number] > sizes[number] for number in logs)
        if grown and time.monotonic() - rests_since >= _SETTLED_S:
            return


def _kernel_words(pid: int) -> bytes:
    """One line per thread: its state, and where in the kernel it waits."""
    lines = [
        f"thread {task.number} ({task.name}) state {task.state}, in the kernel at {task.waits_in}\n"
        for task in processes.tasks(pid)
    ]
    return "".join(lines).encode() + b"\n"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _from(path: Path, start: int) -> bytes:
    try:
        with path.open("rb") as stream:
            stream.seek(start)
            return stream.read()
    except OSError:
        return b""
