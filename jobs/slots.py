"""One machine's cores and GPUs, shared out among one user's jobs. Standard library only.

A slot is a file in a per-user folder on a local disk, held by flock(2). The supervisor passes its locked descriptors on
to its ranks, and the kernel frees a slot when the last process that has the descriptor ends. So a killed supervisor
leaves nothing to sweep, and the cores of ranks that outlived it stay taken. The file's text, for people, says who took
it last.

Only the holder of a gate collects slots, GPUs before cores, and it keeps the gate until it has all it wants. So two
jobs never wait for each other's half, small jobs cannot starve a large one, and a job that waits for a GPU does not
hold up those that need none.
"""

import fcntl
import math
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

CURE = "chmod 700 makes a folder of your own private; or set STX_SLOTS to another one on a local disk"


def cores() -> int:
    """How many cores jobs may use: $STX_CORES, else the affinity mask and the container's quota."""
    override = os.environ.get("STX_CORES")
    if override is not None:
        return int(override)
    return max(1, min(len(os.sched_getaffinity(0)), _cpu_quota()))


def gpus() -> tuple[str, ...]:
    """The GPUs jobs may use, as CUDA_VISIBLE_DEVICES names them: $STX_GPUS of them, else the visible ones, else all."""
    override = os.environ.get("STX_GPUS")
    if override is not None:
        return tuple(str(index) for index in range(int(override)))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name for name in visible.split(",") if name not in ("", "-1"))
    found = [entry for entry in Path("/dev").iterdir() if re.fullmatch(r"nvidia\d+", entry.name)]
    return tuple(str(index) for index in range(len(found)))


def default_dir() -> Path:
    """Where this user's slots are: $STX_SLOTS, else a folder in /tmp (not $TMPDIR: all shells must find the same)."""
    return Path(os.environ.get("STX_SLOTS") or f"/tmp/stx-slots-{os.geteuid()}")  # noqa: S108 - check looks at owner and mode


@dataclass
class Claim:
    """What one job wants, and what it has of it so far. Call `advance` until it says True; `release` gives all back."""

    folder: Path
    cores: int
    gpus: int
    note: str = ""
    granted_gpus: list[str] = field(default_factory=list)
    _held: list[int] = field(default_factory=list)
    _gates: dict[str, int] = field(default_factory=dict)

    def advance(self) -> bool:
        """Take what is free now. True: everything wanted is held, by descriptors that children inherit."""
        check(self.folder)
        if self._missing_gpus() and not (self._gate("gpu") and self._take_gpus()):
            return False
        if self._missing_cores() and not (self._gate("core") and self._take_cores()):
            return False
        self._open_gates()
        return True

    def release(self) -> None:
        """Give back all of it."""
        self._open_gates()
        while self._held:
            os.close(self._held.pop())
        self.granted_gpus.clear()

    def _missing_gpus(self) -> int:
        return self.gpus - len(self.granted_gpus)

    def _missing_cores(self) -> int:
        return self.cores - (len(self._held) - len(self.granted_gpus))

    def _take_gpus(self) -> bool:
        for name in gpus():
            if self._missing_gpus() and name not in self.granted_gpus and self._take(f"gpu-{_file_name(name)}"):
                self.granted_gpus.append(name)
        return not self._missing_gpus()

    def _take_cores(self) -> bool:
        for index in range(cores()):
            if self._missing_cores():
                self._take(f"core-{index}")
        return not self._missing_cores()

    def _take(self, name: str) -> bool:
        descriptor = _lock(self.folder / name)
        if descriptor is None:
            return False
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()} {self.note}\n".encode())
        os.set_inheritable(descriptor, True)
        self._held.append(descriptor)
        return True

    def _gate(self, name: str) -> bool:
        if name not in self._gates:
            descriptor = _lock(self.folder / f"gate-{name}")
            if descriptor is None:
                return False
            self._gates[name] = descriptor
        return True

    def _open_gates(self) -> None:
        while self._gates:
            os.close(self._gates.popitem()[1])


def _lock(path: Path) -> int | None:
    """An open, locked descriptor, or None when another process has it. Within one process a second lock fails too."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def check(folder: Path) -> None:
    """Make the folder; PermissionError for one that somebody else put there or may write in."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    reason = refusal(folder)
    if reason:
        raise PermissionError(f"{reason}; {CURE}")


def refusal(folder: Path) -> str:
    """Why cores cannot be shared out there, or nothing; a folder that is not there yet is made private."""
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return ""
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return f"{folder} is not a directory of this user's"
    others = stat.S_IMODE(status.st_mode) & (stat.S_IRWXG | stat.S_IRWXO)
    return f"{folder} is open to others (mode {stat.S_IMODE(status.st_mode):o})" if others else ""


def _file_name(gpu: str) -> str:
    return gpu.replace("/", "_")


def _cpu_quota() -> int:
    """Whole cores that a container's quota allows (cgroup v2); one core per job beyond it would run at half speed."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return 1 << 30
    return 1 << 30 if quota == "max" else math.ceil(int(quota) / int(period))
