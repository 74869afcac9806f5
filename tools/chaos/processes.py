"""The processes of one run: whatever was started with its mark in the environment, which children inherit.

Nothing is found by its name: the mark is the folder of this run, and no other program was told of it. A pid is used
only together with its start time, so one that was given to somebody else meanwhile is left alone.
"""

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs import processes

MARK = "STX_CHAOS_RUN"
ROLE_WORDS = {"rank": (b"stx.worker", b"run"), "supervisor": (b"jobs.exec",), "coordinator": (b"stx.cli", b"submit")}


@dataclass(frozen=True)
class Member:
    """A live process of a run. `attempt` is the attempt directory it works for, if any."""

    pid: int
    start_time: int
    role: str
    attempt: str

    def send(self, number: int) -> bool:
        """Send it a signal. False: it is gone."""
        found = processes.look(self.pid)
        if found is None or found.start_time != self.start_time:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
            return True
        return False


def members(mark: Path) -> list[Member]:
    """All live processes of the run with this mark, oldest first."""
    found = []
    for process in processes.every():
        if process.pid == os.getpid() or processes.variable(process.pid, MARK) != str(mark):
            continue
        arguments = processes.arguments(process.pid)
        role = role_of(arguments)
        attempt = processes.variable(process.pid, "STX_ATTEMPT") or ""
        if role == "supervisor":
            attempt = os.fsdecode(arguments[-1])
        found.append(Member(process.pid, process.start_time, role, attempt))
    return sorted(found, key=lambda member: (member.start_time, member.pid))


def role_of(arguments: Sequence[bytes]) -> str:
    """rank, supervisor, coordinator, or other (a check of models, a report): by the words of the command line."""
    return next((role for role, words in ROLE_WORDS.items() if all(word in arguments for word in words)), "other")


def end_all(mark: Path, *, limit_s: float = 20.0) -> int:
    """SIGKILL to every process of the run until none is left, stopped ones too; how many there were at first."""
    until, first = time.monotonic() + limit_s, -1
    while found := members(mark):
        first = len(found) if first < 0 else first
        for member in found:
            member.send(signal.SIGKILL)
        if time.monotonic() > until:
            raise RuntimeError(f"processes that do not end: {[member.pid for member in found]}")
        time.sleep(0.05)
    return max(first, 0)


def has_mapped(mark: Path, path: Path) -> bool:
    """Whether a live process of the run reads this file by memory map: it was checked, and is not read again."""
    name = str(path.resolve())
    for member in members(mark):
        with contextlib.suppress(OSError):
            if name in Path(f"/proc/{member.pid}/maps").read_text(errors="replace"):
                return True
    return False
