"""Processes of this machine, read from /proc, under names that are never reused. Standard library only.

A pid alone is reused; (pid, start time, boot) is not. A session id is not reused either while the session has a member,
so the processes of a job whose supervisor was killed are found as the members of its session.
"""

import contextlib
import functools
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_INITIAL_PID_NAMESPACE = "pid:[4026531836]"


class Process(NamedTuple):
    """A running process: `start_time` in clock ticks since the boot, its process group, its session, its parent."""

    pid: int
    start_time: int
    group: int
    session: int
    parent: int


class Task(NamedTuple):
    """A thread: its state as in ps(1), and the kernel's function that it waits in ("0": it runs, or none may know)."""

    number: int
    name: str
    state: str
    waits_in: str


def look(pid: int, *, zombies: bool = False) -> Process | None:
    """The process with this pid; None if there is none or, unless asked for, it has ended and waits to be reaped."""
    try:
        with Path(f"/proc/{pid}/stat").open("rb") as stream:
            text = stream.read()
    except OSError:
        return None
    # The command name, in parentheses, may itself hold spaces and parentheses.
    fields = text[text.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X") and not zombies:
        return None
    start_time, group, session, parent = (int(fields[place]) for place in (19, 2, 3, 1))
    return Process(pid, start_time=start_time, group=group, session=session, parent=parent)


def state(pid: int) -> str:
    """Its state as in ps(1), T for one that was stopped; empty when it is gone."""
    try:
        with Path(f"/proc/{pid}/stat").open("rb") as stream:
            return stream.read().rpartition(b")")[2].split()[0].decode()
    except OSError:
        return ""


def tasks(pid: int) -> list[Task]:
    """The threads of a process; none when it is gone."""
    found = []
    with contextlib.suppress(OSError):
        for entry in sorted(Path(f"/proc/{pid}/task").iterdir(), key=lambda entry: int(entry.name)):
            name, _, rest = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")
            found.append(Task(int(entry.name), name.partition("(")[2], rest.split()[0], _waits_in(entry)))
    return found


def _waits_in(task: Path) -> str:
    try:
        return (task / "wchan").read_text(encoding="ascii") or "0"
    except OSError:
        return "0"


def every() -> Iterator[Process]:
    """All running processes that this user may see."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (process := look(int(entry.name))) is not None:
            yield process


def descendants(pid: int) -> list[Process]:
    """The children of a process, theirs, and so on, those that were started first before the others. One whose parent
    has ended is its child only where it is a subreaper (prctl(2)).
    """
    children = defaultdict(list)
    for process in every():
        children[process.parent].append(process)
    found, parents = [], [pid]
    while parents:
        of_these = [process for parent in parents for process in children[parent]]
        found += of_these
        parents = [process.pid for process in of_these]
    return sorted(found, key=lambda process: process.start_time)


def me() -> Process:
    """This process."""
    process = look(os.getpid())
    assert process is not None, "a running process has an entry in /proc"
    return process


def unique_id(process: Process) -> str:
    """pid:start time:boot:machine, a name that is never given twice."""
    return f"{process.pid}:{process.start_time}:{boot_id()}:{machine()}"


def is_gone(name: str) -> bool:
    """Whether the process with this unique_id was one of this machine, and has ended."""
    return name.rpartition(":")[2] == machine() and not runs(name)


def runs(name: str) -> bool:
    """Whether the process with this unique_id runs, on this machine."""
    pid = name.partition(":")[0]
    process = look(int(pid)) if pid.isdecimal() else None
    return process is not None and unique_id(process) == name


def owner(pid: int) -> int | None:
    """The number of the user whose process it is; None if there is none."""
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None


def owned(pid: int) -> bool:
    """Whether the process is this user's."""
    return owner(pid) == os.geteuid()


@functools.cache
def others_are_seen() -> bool:
    """Whether the processes of other users are seen here: /proc may be mounted with hidepid. Root sees all."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    return os.geteuid() == 0 or not hides_others(mounts)


def hides_others(mounts: str) -> bool:
    """Whether /proc is mounted so by the lines of proc(5), mountinfo: hidepid is neither 0 nor off."""
    options = [line.rsplit(" ", 1)[-1] for line in mounts.splitlines() if line.split()[4] == "/proc"]
    hiding = re.search(r"hidepid=(\w+)", options[-1]) if options else None
    return hiding is not None and hiding[1] not in ("0", "off")


def arguments(pid: int) -> list[bytes]:
    """Its command line; empty when it is gone or not ours to read."""
    return _strings(pid, "cmdline")


def variable(pid: int, name: str) -> str | None:
    """An environment variable that it was started with; None without it, or when it is gone or not ours to read."""
    start = os.fsencode(f"{name}=")
    found = (word[len(start) :] for word in _strings(pid, "environ") if word.startswith(start))
    return next(map(os.fsdecode, found), None)


def boot_id() -> str:
    """One id from boot to boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def machine() -> str:
    """Whose pids these are, a word without colons: host name, machine id and, in a container, the pid namespace."""
    try:
        machine_id = Path("/etc/machine-id").read_text(encoding="ascii").strip()[:8]
    except OSError:
        machine_id = ""
    namespace = str(Path("/proc/self/ns/pid").readlink())
    # Two containers may bear one host name; pids of the one mean nothing in the other.
    inside = "" if namespace == _INITIAL_PID_NAMESPACE else namespace.strip("pid:[]")
    return "-".join(part for part in (os.uname().nodename, machine_id, inside) if part).replace(":", "_")


def _strings(pid: int, name: str) -> list[bytes]:
    try:
        with Path(f"/proc/{pid}/{name}").open("rb") as stream:
            return stream.read().split(b"\0")[:-1]
    except OSError:
        return []
