"""A Ray cluster of our own on this machine: its nodes are children of the test, which leaves no process behind."""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobs import processes
from jobs.launchers.ray.up import folder as folders
from jobs.launchers.ray.up import here, record
from jobs.launchers.ray.up.folder import Asked, ClusterFolder, Over, Report, Step
from jobs.launchers.ray.up.record import Record

PATIENCE_S = 120.0  # for a loaded machine


class Nodes:
    """A cluster that was asked for, and the supervisors that were started for it."""

    def __init__(self, root: Path, **asked: object) -> None:
        token = root / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(16))
        base = Asked(
            name="test",
            nodes=1,
            record=str(root / "test.json"),
            token=str(token),
            cpus=1,
            gpus=0,
            mem_gb=3.0,
            join_s=90.0,
            stop_lead_s=20.0,
            temp_dir=str(root),
        )
        self.asked = replace(base, **asked)
        self.root = root
        claimed = folders.claim(root / "test", self.asked, number=1)
        assert claimed is not None
        self.folder: ClusterFolder = claimed
        self.children: list[subprocess.Popen[bytes]] = []
        self.seen: set[processes.Process] = set()

    def start(self, *numbers: int) -> None:
        """Supervisors of these nodes; of all of them without numbers."""
        for number in numbers or range(self.asked.nodes):
            self.children.append(here.launch(self.folder, number, environment=os.environ))

    @property
    def record(self) -> Record | None:
        return record.read(Path(self.asked.record))

    @property
    def over(self) -> Over | None:
        return folders.load(Over, self.folder.over)

    def report(self, number: int) -> Report | None:
        return folders.load(Report, self.folder.node(number))

    def look(self) -> set[processes.Process]:
        """Everything that the supervisors have started and that lives; it is remembered."""
        found = {one for child in self.children for one in processes.descendants(child.pid)}
        self.seen |= found
        return found

    def running(self, name: bytes) -> list[int]:
        """Descendants whose command line has a word that ends so."""
        return [one.pid for one in self.look() if any(w.endswith(name) for w in processes.arguments(one.pid))]

    def left(self) -> list[processes.Process]:
        """What of all that was ever seen still lives."""
        return [one for one in self.seen | self.look() if processes.look(one.pid) == one or self._moved(one)]

    def _moved(self, one: processes.Process) -> bool:
        now = processes.look(one.pid)
        return now is not None and now.start_time == one.start_time

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait, looking at what runs meanwhile."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            self.look()
            assert time.monotonic() < deadline, f"not in time: {what}\n{self.words()}"
            time.sleep(0.1)

    def until_ended(self) -> list[int]:
        """Until all supervisors have ended; their exit codes."""
        self.until(lambda: all(child.poll() is not None for child in self.children), "all nodes have ended")
        return [child.returncode for child in self.children]

    def words(self) -> str:
        """All that was said, for a failed test."""
        logs = sorted(self.folder.path.glob("*.log"))
        return "\n".join(f"{path.name}:\n{path.read_text(errors='replace')[-3000:]}" for path in logs)

    def end(self) -> list[processes.Process]:
        """Everything ended by force; what had to be."""
        for child in self.children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 40
        while any(child.poll() is None for child in self.children) and time.monotonic() < deadline:
            self.look()
            time.sleep(0.1)
        left = self.left()
        for one in left:
            os.kill(one.pid, signal.SIGKILL)
        return left


@pytest.fixture
def make() -> Iterator[Callable[..., Nodes]]:
    """Ask for clusters; at the end nothing of them may live."""
    made: list[Nodes] = []
    roots: list[Path] = []

    def make(**asked: object) -> Nodes:
        roots.append(Path(tempfile.mkdtemp(prefix="sr", dir="/tmp")))  # sockets have short names
        made.append(Nodes(roots[-1], **asked))
        return made[-1]

    yield make
    left = {nodes.folder.path: nodes.end() for nodes in made}
    words = "\n".join(nodes.words() for nodes in made)
    for root in roots:
        shutil.rmtree(root, ignore_errors=True)
    assert not any(left.values()), f"the test left processes behind: {left}\n{words}"


def is_up(nodes: Nodes) -> Callable[[], bool]:
    """Whether the address is written; fails early where the cluster has ended instead."""

    def check() -> bool:
        assert nodes.over is None, f"{nodes.over}\n{nodes.words()}"
        return nodes.record is not None

    return check


def has_failed(nodes: Nodes, number: int) -> Callable[[], bool]:
    """Whether a node has come to its end by itself."""
    return lambda: (report := nodes.report(number)) is not None and report.step is Step.FAILED
