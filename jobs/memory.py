"""Whom the kernel killed for want of memory, as cgroup v2 counts it. Standard library only.

    memory.events of a cgroup:  low 0 / high 0 / max 12 / oom 1 / oom_kill 1

`oom_kill` counts the processes of the cgroup and of those below it that any OOM killer ended: at the limit of this
cgroup, of one above it, or when the whole machine had no memory left. It is counted before the process gets its
SIGKILL. On a machine without cgroup v2 nobody counts.
"""

from pathlib import Path

_PROC, _ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


class OomKiller:
    """Counts its kills in one cgroup from now on."""

    def __init__(self, cgroup: Path) -> None:
        self._cgroup = cgroup
        self._before = oom_kills(cgroup)

    def kills(self) -> int:
        """How many there were since."""
        return max(0, oom_kills(self._cgroup) - self._before)


def own_cgroup(*, proc: Path = _PROC, root: Path = _ROOT) -> Path:
    """The folder of the cgroup that this process is in; without cgroup v2, one that has no counts."""
    for line in _lines(proc):
        if line.startswith("0::"):
            return root / line.removeprefix("0::").lstrip("/")
    return root


def oom_kills(cgroup: Path) -> int:
    """How many processes of a cgroup were killed for want of memory since it was made; 0 where nobody counts."""
    for line in _lines(cgroup / "memory.events"):
        word, _, count = line.partition(" ")
        if word == "oom_kill" and count.isdecimal():
            return int(count)
    return 0


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
