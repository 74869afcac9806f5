"""A real Ray for tests: nodes that are children of the test, each with a short temporary folder and ports of its own,
and one token. Ended whatever the tests do, by what bears their folder; `ray stop` would end everybody's.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import pytest

from jobs.launchers.ray import Where

HOST = "127.0.0.1"
PATIENCE_S = 120.0
START = (sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats")
GIB = 1 << 30


class RayNode:
    """One node: `name`, and its own folder."""

    def __init__(self, name: str, folder: Path, process: "subprocess.Popen[bytes]") -> None:
        self.name = name
        self.folder = folder
        self.process = process

    def processes(self) -> list[int]:
        """Its daemons and workers, by its folder on their command lines; those of another name by their logs."""
        folder = os.fsencode(self.folder)
        found = {pid: _words(pid, "cmdline") for pid in _pids()}
        return [pid for pid in found if folder in found[pid] or (found[pid][:5] == b"ray::" and self.serves(pid))]

    def serves(self, pid: int) -> bool:
        """Whether a process is connected to it: it then writes one of its logs."""
        return os.fsencode(self.folder) in _open_files(pid)

    @property
    def raylet(self) -> int:
        """Its raylet."""
        return next(pid for pid in self.processes() if _words(pid, "cmdline").partition(b"\0")[0].endswith(b"/raylet"))

    def kill(self) -> None:
        """As a machine that loses its power: daemons and workers at once; what actors started is not among them."""
        while left := [self.process.pid, *self.processes()] if self.process.poll() is None else self.processes():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.poll()
            time.sleep(0.05)
        self.process.wait()


class RayCluster:
    """A head, and whatever nodes join it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = folder / "token"
        self.token.write_text(secrets.token_hex(32))
        self.nodes: dict[str, RayNode] = {}
        self.address = f"{HOST}:{free_port()}"

    @property
    def where(self) -> Where:
        """For a launcher."""
        return Where(self.address, token=str(self.token))

    @property
    def env(self) -> dict[str, str]:
        """With the token, and nothing of a Ray that the tests may run in."""
        outside = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return {**outside, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token)}

    def start(self, name: str, *, cpus: int, gpus: int = 0) -> RayNode:
        """Start a node, the head if it is the first one, and wait until its raylet is there."""
        folder = self.folder / name
        folder.mkdir()
        with (folder / "log").open("wb") as log:
            process = self._spawn(name, folder, log, cpus=cpus, gpus=gpus)
        node = self.nodes[name] = RayNode(name, folder, process)
        until = time.monotonic() + PATIENCE_S
        while b"Ray runtime started" not in (folder / "log").read_bytes():
            assert process.poll() is None and time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.1)
        return node

    def _spawn(self, name: str, folder: Path, log: BinaryIO, *, cpus: int, gpus: int) -> "subprocess.Popen[bytes]":
        head = ("--head", f"--port={self.address.rpartition(':')[2]}", "--include-dashboard=false")
        return subprocess.Popen(
            [
                *START,
                *(head if not self.nodes else (f"--address={self.address}",)),
                f"--temp-dir={folder}",
                f"--node-name={name}",
                f"--node-ip-address={HOST}",
                f"--num-cpus={cpus}",
                f"--num-gpus={gpus}",
                f"--memory={2 * GIB}",
                f"--object-store-memory={GIB // 8}",
                f"--node-manager-port={free_port()}",
                f"--object-manager-port={free_port()}",
                "--dashboard-agent-listen-port=0",
                "--dashboard-agent-grpc-port=0",
                "--min-worker-port=0",
                "--max-worker-port=0",
            ],
            env=self.env | {"RAY_gcs_create_placement_group_retry_max_interval_ms": "200", "RAY_worker_niceness": "0"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def down(self) -> None:
        """End every process of every node."""
        for node in reversed(self.nodes.values()):
            node.kill()


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def cluster() -> Iterator[RayCluster]:
    """An empty one; without Ray the test is skipped, and in CI it fails."""
    if find_spec("ray") is None and not os.environ.get("STX_CI"):
        pytest.skip("Ray is not installed")
    # pytest's folders have long names, and sockets may not.
    folder = Path(tempfile.mkdtemp(prefix="sr-", dir="/tmp"))
    made = RayCluster(folder)
    try:
        yield made
    finally:
        made.down()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def raycluster() -> Iterator[RayCluster]:
    """Two nodes of this machine for all tests of this process. A test that breaks one makes a cluster of its own."""
    with cluster() as made:
        made.start("n1", cpus=4, gpus=2)
        made.start("n2", cpus=2)
        yield made


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _words(pid: int, name: str) -> bytes:
    try:
        return (Path("/proc") / str(pid) / name).read_bytes()
    except OSError:
        return b""


def _open_files(pid: int) -> bytes:
    try:
        with os.scandir(f"/proc/{pid}/fd".encode()) as entries:
            return b"\0".join(os.readlink(entry.path) for entry in entries)
    except OSError:
        return b""
