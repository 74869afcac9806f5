"""What a site does to jobs: its higher partition preempts them, its nodes die. On a slurm/devcluster only."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

DEVCLUSTER = Path(__file__).resolve().parents[2] / "slurm" / "devcluster"


@dataclass(frozen=True)
class DevCluster:
    """The cluster in `folder`, which is up."""

    folder: Path

    @property
    def conf(self) -> Path:
        """Its slurm.conf, for $SLURM_CONF."""
        return self.folder / "slurm.conf"

    def nodes(self) -> list[str]:
        """Those that training runs on."""
        return self._run("sinfo", "--noheader", "--Node", "--partition=low", "--format=%N").split()

    def preempt(self, nodes: int, *, seconds: float) -> None:
        """Whoever works on so many of its nodes has to leave."""
        words = ["--partition=high", f"--nodes={nodes}", "--exclusive", "--output=/dev/null"]
        self._run("sbatch", *words, "--wrap", f"sleep {seconds:.1f}")

    def clear(self) -> None:
        """No job of ours is left in the queue."""
        self._run("scancel", f"--user={os.geteuid()}")

    def node(self, what: str, name: str) -> None:
        """`down` or `up`."""
        argv = [sys.executable, str(DEVCLUSTER / "node"), what, name, "--dir", str(self.folder)]
        subprocess.run(argv, check=True, capture_output=True)

    def _run(self, *argv: str) -> str:
        env = {"SLURM_CONF": str(self.conf), "PATH": "/usr/local/bin:/usr/bin:/bin"}
        return subprocess.run(argv, check=True, capture_output=True, text=True, env=env).stdout
