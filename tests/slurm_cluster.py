"""A real Slurm for tests: brought up by slurm/devcluster in a folder of its own, and ended whatever the tests do."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parents[1] / "slurm" / "devcluster"


class DevCluster:
    """A cluster that is up: `folder`, `conf` (slurm.conf), `nodes`, and `env`, which makes any program use it."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record
        self.folder = Path(record["dir"])
        self.conf = Path(record["slurm_conf"])
        self.nodes: list[str] = record["nodes"]
        # A test may itself run inside a job of another cluster.
        outside = {
            name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH", "SRUN"))
        }
        self.env = {**outside, "SLURM_CONF": str(self.conf)}

    def command(self, *argv: str, limit: float = 60) -> str:
        """Run a Slurm command as a user of this cluster; what it prints. It has to end with 0."""
        result = subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=limit)
        assert result.returncode == 0, f"{' '.join(argv)}: exit {result.returncode}\n{result.stdout}{result.stderr}"
        return result.stdout

    def sbatch(self, script: str, *options: str) -> str:
        """Submit lines of bash; the job's id."""
        return self.command("sbatch", "--parsable", *options, "--wrap", script).strip()

    def job(self, job: str) -> dict[str, str]:
        """What `scontrol show job` says of a job: JobState, Reason, Restarts, ExitCode, NodeList, ..."""
        words = self.command("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def node_state(self, node: str) -> str:
        """The node's state as scontrol says it: IDLE, MIXED, ALLOCATED, DOWN, with marks behind it."""
        words = self.command("scontrol", "--oneliner", "show", "node", node).split()
        return next(word for word in words if word.startswith("State=")).removeprefix("State=")

    def node(self, what: str, node: str, *options: str) -> None:
        """`down` kills a node with all that runs on it, `up` brings it back."""
        self._ours("node", what, node, *options)

    def controller(self, what: str) -> None:
        """`down` kills slurmctld, `up` starts it again."""
        self._ours("controller", what)

    def clean(self) -> None:
        """All jobs cancelled and ended, everything up, all nodes idle: as the next test wants to find it."""
        self.command("scancel", "--user", str(os.getuid()))
        wait_for(lambda: not self.command("squeue", "-h").strip(), limit=60, seen=lambda: self.command("squeue", "-h"))
        wait_for(self._all_idle, limit=60, seen=lambda: self.command("sinfo", "-N", "-h"))

    def processes(self) -> list[int]:
        """Live processes that use this cluster's folder: daemons, steps, tasks."""
        return [pid for pid in _pids() if str(self.folder) in _words(pid)]

    def _all_idle(self) -> bool:
        states = {node: self.node_state(node) for node in self.nodes}
        for node in states:
            if "DRAIN" in states[node]:
                self.command("scontrol", "update", f"NodeName={node}", "State=RESUME")
        return set(states.values()) == {"IDLE"}

    def _ours(self, program: str, *arguments: str) -> None:
        result = run_devcluster(program, *arguments, "--dir", str(self.folder))
        assert result.returncode == 0, result.stderr


def run_devcluster(program: str, *arguments: str, limit: float = 300) -> subprocess.CompletedProcess[str]:
    """Run slurm/devcluster/PROGRAM with this Python."""
    argv = [sys.executable, str(HERE / program), *arguments]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit)


def wait_for(
    condition: Callable[[], bool], *, limit: float, every: float = 0.2, seen: Callable[[], object] = str
) -> None:
    """Wait until something is so; fails after `limit` seconds, with what `seen` tells then."""
    until = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < until, f"not within {limit} s; seen: {seen()}"
        time.sleep(every)


@contextlib.contextmanager
def cluster(*options: str) -> Iterator[DevCluster]:
    """A cluster with these options of `up`. Without Slurm the test is skipped, and in CI it fails."""
    # pytest's folders have long names, and sockets may not.
    folder = Path(tempfile.mkdtemp(prefix="stx-dc-", dir="/tmp"))
    try:
        made = run_devcluster("up", "--dir", str(folder), "--json", *options)
        if made.returncode == 2 and "missing" in made.stderr and not os.environ.get("STX_CI"):
            pytest.skip(f"no Slurm: {made.stderr.strip()}")
        assert made.returncode == 0, made.stderr
        yield DevCluster(json.loads(made.stdout))
    finally:
        run_devcluster("down", "--dir", str(folder))
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def devcluster() -> Iterator[DevCluster]:
    """One cluster of four nodes for all tests of this process. A test that breaks it mends it, or ends with clean()."""
    with cluster() as made:
        yield made


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _words(pid: int) -> str:
    """Command line and environment of a process; empty when it is gone."""
    try:
        text = b"".join((Path("/proc") / str(pid) / name).read_bytes() for name in ("cmdline", "environ"))
    except OSError:
        return ""
    return text.decode(errors="replace")
