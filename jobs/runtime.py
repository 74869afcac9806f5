"""The worker's side of a job: signals, heartbeat, outcome. Standard library only.

`install()` is the first thing a worker does. Until then USR1, USR2 and TERM are blocked (jobs.exec does that) and wait;
from then on USR2 and TERM set a flag that the worker asks for at its step boundaries (a handler that saved by itself
would save half a step), and USR1 dumps all stacks to the log. A signal of the first millisecond is therefore a clean
yield like any other.

    attempt dir:  alive-<rank>, heartbeat.json, outcome-<rank>.json
"""

import faulthandler
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from jobs import files, outcome, processes
from jobs.files import AttemptDir
from jobs.hangs import Board, Line
from jobs.outcome import EXIT_YIELDED as EXIT_YIELDED
from jobs.outcome import Outcome
from jobs.spec import Cause as Cause
from jobs.spec import Result as Result

RESERVE_BYTES = 131072  # more than the longest message takes when each character becomes two \u escapes
_WRITE_SHARE = 50  # a beat may cost at most 1/50 of the time: a slow file system must not slow the training

_stop = False
_reserve: Path | None = None
_board: Board | None = None
_parent = os.getppid()


def install() -> None:
    """Install the handlers, tell the supervisor that this rank is alive, unblock. In the main thread, before others.

    Without $STX_ATTEMPT (a worker started by hand) there is nobody to tell, and only the handlers are installed.
    """
    global _reserve, _board
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True, chain=False)
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, _on_stop)
    # Blocked around a fork, so that a TERM to a child of the first microsecond waits for the default disposition.
    os.register_at_fork(before=_block_term, after_in_parent=_unblock_term, after_in_child=_forked)
    if "STX_ATTEMPT" in os.environ:
        attempt = AttemptDir(attempt_dir())
        _reserve = files.write_temp(attempt.outcome(rank()), [b" " * RESERVE_BYTES])
        files.write(attempt.alive(rank()), f"{os.getpid()}\n".encode())
    if (descriptor := os.environ.pop("STX_BOARD", None)) is not None:
        _board = Board(int(descriptor))
        os.close(int(descriptor))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM})


def stillborn(error: OSError) -> int:
    """Say that this rank cannot begin, because it cannot write into its attempt; the exit code."""
    cause = outcome.cause_of(error.errno) or Cause.SETUP
    sys.stderr.write(f"cannot begin: {error}\n")
    try:
        finish(attempt_dir(), rank(), Result.FAILED, cause, f"before it began: {error}")
    except OSError as worse:
        return outcome.exit_code(worse)
    return 1


def _on_stop(number: int, frame: FrameType | None) -> None:
    global _stop
    _stop = True


def _forked() -> None:
    """A forked loader process ends when it is told to; ours alone takes TERM for `save and leave`."""
    global _reserve
    _reserve = None
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _unblock_term()


def _block_term() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _unblock_term() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def stop_requested() -> bool:
    """Whether this rank was asked to save and yield. Ranks may see it at different steps: agree before acting on it."""
    return _stop


def request_stop() -> None:
    """Ask this rank to save and yield, as a signal would."""
    global _stop
    _stop = True


def is_orphan() -> bool:
    """Whether the process that started this one is gone."""
    return os.getppid() != _parent


def tell(line: Line) -> None:
    """Tell the supervisor how this rank does; there is none where a worker was started by hand."""
    if _board is not None:
        _board.write(rank(), line)


def attempt_dir() -> Path:
    """Where this attempt lives."""
    return Path(os.environ["STX_ATTEMPT"])


def rank() -> int:
    """This process's number in the job; 0 in a worker started by hand."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many ranks the job has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """This process's number on its node. Not a device index: a rank sees only its own GPUs."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def age_s() -> float:
    """Seconds since this process was started, on a clock that nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - processes.me().start_time / os.sysconf("SC_CLK_TCK")


def time_left() -> float:
    """Seconds until the job is ended by force; infinite in a worker started by hand."""
    return float(os.environ.get("STX_DEADLINE", "inf")) - time.monotonic()


class Heart:
    """Rank 0's heartbeat.json: a counter that moves while the worker does, and what it does. Other ranks write nothing.

    `writing` while a beat is on its way to the store: the watchdog does not count that time.
    A beat that cannot be written (a full disk) is counted in `failures`; it never ends the work it reports on.
    """

    def __init__(self, attempt_dir: Path, *, every_s: float = 2.0) -> None:
        self._path = AttemptDir(attempt_dir).heartbeat if rank() == 0 else None
        self._every_s = every_s
        self._next = 0.0
        self._numbers: dict[str, float] = {}
        self.counter = 0
        self.phase = "start"
        self.failures = 0
        self.writing = False

    def beat(self, phase: str, **numbers: float) -> None:
        """Count; write if the last write is long enough ago, or the phase is new."""
        start = time.monotonic()
        due = self.counter == 0 or phase != self.phase or start >= self._next
        self.counter += 1
        self.phase, self._numbers = phase, numbers
        if self._path is None or not due:
            return
        record = {"counter": self.counter, "phase": phase, "time": time.time(), "numbers": numbers}
        self.writing = True
        try:
            files.write(self._path, json.dumps(record).encode() + b"\n")
        except OSError:
            self.failures += 1
        finally:
            self.writing = False
        now = time.monotonic()
        self._next = now + max(self._every_s, _WRITE_SHARE * (now - start))

    def again(self) -> None:
        """Count once more, in the phase and with the numbers of the last beat: for each piece of something long."""
        self.beat(self.phase, **self._numbers)


def finish(
    attempt_dir: Path, rank: int, result: Result, cause: Cause | None = None, message: str = "", **info: object
) -> bool:
    """Say how this rank's attempt ended; the first word stands, and False means it was another one.

    On a full disk it is written into blocks that `install` reserved.
    """
    path = AttemptDir(attempt_dir).outcome(rank)
    data = Outcome(rank, result, cause, message, info).encode()
    return outcome.insist(lambda: _say(path, data))


def _say(path: Path, data: bytes) -> bool:
    global _reserve
    temp, _reserve = _reserve, None
    if temp is None or temp.parent != path.parent:
        return files.publish(path, data)
    _overwrite(temp, data)
    return files.publish_file(temp, path)


def _overwrite(path: Path, data: bytes) -> None:
    """Replace a file's content in its own blocks. Only for a temp file that nobody reads yet."""
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        files.write_all(descriptor, data)
        os.ftruncate(descriptor, len(data))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
