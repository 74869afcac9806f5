"""A supervisor as the actor that started it sees it: `python -m jobs.exec --ray --watch-fd N <attempt dir>`.

The two hold the ends of one socket (jobs/parent.py): the supervisor says its pid and its exit code, and each end reads
as closed when the other's process is gone. A supervisor that was killed leaves its ranks behind, which are members of
its session: they are ended here.
"""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from jobs import files, processes

GRACE_S = 30.0  # as Slurm's KillWait: a rank has failed, so there is little to save
SWEEP_S = 0.05


class Child:
    """One supervisor, from its start to the end of everything that it started. Signals that come before it has said its
    pid are kept for it.
    """

    def __init__(self, command: Sequence[str], attempt_dir: Path, *, env: Mapping[str, str], log: Path) -> None:
        self.code: int | None = None
        self._pid = 0
        self._early: list[int] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._line = _start(command, attempt_dir, env=env, log=log)
        threading.Thread(target=self._attend, name="supervisor", daemon=True).start()

    @property
    def is_over(self) -> bool:
        """Whether it has ended, and all that it started."""
        return self._over.is_set()

    def wait(self, within_s: float | None = None) -> bool:
        """Whether that is so within this time; None waits for it."""
        return self._over.wait(within_s)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        with self._lock:
            if not self._pid:
                self._early.append(number)
            elif not self.is_over:
                with suppress(ProcessLookupError):
                    os.kill(self._pid, number)

    def end(self, *, grace_s: float = GRACE_S) -> None:
        """TERM, and KILL to everything after some time; returns at once."""
        self.signal(signal.SIGTERM)
        threading.Thread(target=self._kill_after, args=(grace_s,), daemon=True).start()

    def _kill_after(self, grace_s: float) -> None:
        if not self._over.wait(grace_s):
            self.signal(signal.SIGKILL)

    def _attend(self) -> None:
        """Read what it says until the socket is closed: then it is gone."""
        with self._line, self._line.makefile("r", encoding="ascii") as lines, suppress(OSError):
            for line in lines:
                word, _, number = line.partition(" ")
                if word == "pid":
                    self._begun(int(number))
                else:
                    self.code = int(number)
        while self._pid and (left := _session(self._pid)):
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(SWEEP_S)
        self._over.set()

    def _begun(self, pid: int) -> None:
        with self._lock:
            self._pid = pid
            for number in self._early:
                os.kill(pid, number)


def _start(command: Sequence[str], attempt_dir: Path, *, env: Mapping[str, str], log: Path) -> socket.socket:
    ours, its = socket.socketpair()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, files.MODE)
    with its, os.fdopen(descriptor, "wb") as output:
        started = subprocess.Popen(
            [*command, "--watch-fd", str(its.fileno()), str(attempt_dir)],
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(its.fileno(),),
        )
    threading.Thread(target=started.wait, daemon=True).start()  # it goes on as a child of nobody
    return ours


def _session(leader: int) -> list[int]:
    return [process.pid for process in processes.every() if process.session == leader]
