"""Real processes in real folders: each test has slots of its own, and leaves no process behind."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import processes
from jobs.launchers.local import LocalLauncher


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder for attempts; at the end no process that was told about it may live."""
    path = tmp_path / "attempts"
    path.mkdir()
    yield path
    left = [process.pid for process in processes.every() if knows(process.pid, path)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, "the test left processes behind"


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalLauncher:
    """A local launcher with four cores of its own, whatever the machine has."""
    monkeypatch.setenv("STX_CORES", "4")
    monkeypatch.setenv("STX_GPUS", "0")
    return LocalLauncher(slots_dir=tmp_path / "slots")


def knows(pid: int, path: Path) -> bool:
    """Whether a process has this path on its command line or in its environment."""
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return os.fsencode(path) in text
