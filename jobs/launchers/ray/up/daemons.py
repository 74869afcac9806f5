"""Ray's daemons as our children: started in a session of their own, ended with all they started. Standard library only.

We are the subreaper of whatever they leave behind, so everything that a node started is a descendant of its supervisor.
A supervisor that is killed takes them along: `ray start` gets a SIGKILL from the kernel, and its own children from it.
"""

import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from jobs import files, processes
from jobs.launchers.ray.up import prctl

END_S = 10.0  # Ray's own time for its end
LOOK_S = 0.05
# A scheduler signals every process of a step. These two say "save" to ranks; a daemon would die of them.
IGNORED = (signal.SIGUSR1, signal.SIGUSR2)


def spawn(argv: Sequence[str], *, env: Mapping[str, str], log: Path) -> int:
    """Start a daemon; its pid. Call it in the main thread, with whose end it gets a SIGKILL."""
    parent = os.getpid()
    with files.open_log(log) as stream:
        pid = os.fork()
        if pid == 0:
            _become(argv, env=env, output=stream.fileno(), parent=parent)
    return pid


def _become(argv: Sequence[str], *, env: Mapping[str, str], output: int, parent: int) -> NoReturn:
    """The child's way to exec(2)."""
    try:
        os.setsid()
        prctl.end_with_parent(parent)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.execve(argv[0], list(argv), dict(env))  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(output, f"{argv[0]}: cannot be started: {error}\n".encode())
    os._exit(127)


def reap() -> dict[int, int]:
    """Collect what has ended, also what was left to us: exit codes by pid, negative for a signal."""
    codes: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            codes[pid] = os.waitstatus_to_exitcode(status)
    return codes


def supervisors() -> list[int]:
    """The supervisors of jobs among our descendants."""
    found = processes.descendants(os.getpid())
    return [process.pid for process in found if b"jobs.exec" in processes.arguments(process.pid)]


def end(ray: int) -> None:
    """TERM to `ray start`, which ends its daemons; what is left of our descendants after a while gets a KILL."""
    _signal([ray], signal.SIGTERM)
    deadline = time.monotonic() + END_S
    while left := [process.pid for process in processes.descendants(os.getpid())]:
        if time.monotonic() >= deadline:
            # Again and again: a process may fork while it is being killed.
            _signal(left, signal.SIGKILL)
        time.sleep(LOOK_S)
        reap()
    reap()


def ask_to_save(pids: Sequence[int]) -> None:
    """USR2 to supervisors of jobs."""
    _signal(pids, signal.SIGUSR2)


def _signal(pids: Sequence[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
