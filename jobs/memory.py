"""Whom the kernel killed for want of memory, as cgroup v2 counts it, and how much memory there is. Standard library
only.

    memory.events of a cgroup:  low 0 / high 0 / max 12 / oom 1 / oom_kill 1

`oom_kill` counts the processes of the cgroup and of those below it that any OOM killer ended: at the limit of this
cgroup, of one above it, or when the whole machine had no memory left. It is counted before the process gets its
SIGKILL. On a machine without cgroup v2 nobody counts.
"""

from pathlib import Path

_PROC, _ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


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


def limit_gb(*, proc: Path = _PROC, root: Path = _ROOT) -> float | None:
    """The least memory limit, in GiB, of our cgroup and those above it (v2 or v1); None where there is none."""
    found = []
    for line in _lines(proc):
        _, controllers, name = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top, limit = (root, "memory.max") if not controllers else (root / "memory", "memory.limit_in_bytes")
        lowest = top / name.lstrip("/")
        for folder in (lowest, *(one for one in lowest.parents if one.is_relative_to(top))):
            found += [int(text) for text in _lines(folder / limit) if text.isdecimal()]  # v2 says "max"
    return min(found) / 2**30 if found else None


def available_gb(*, meminfo: Path = _MEMINFO) -> float | None:
    """What the kernel thinks that it could still give, in GiB; None where it does not say."""
    for line in _lines(meminfo):
        words = line.split()
        if words[:1] == ["MemAvailable:"]:
            return int(words[1]) / 2**20
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
