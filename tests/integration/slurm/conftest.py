"""`stx submit --cluster slurm.yaml` as a person types it, on a real Slurm, with commands that can be made to fail."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import OnCluster, Stx
from tests.slurm_cluster import DevCluster

COMMANDS = ("sbatch", "squeue", "scancel", "sacct", "scontrol", "sinfo")
CLUSTER = """\
launcher: slurm
coordinator: {where: foreground}
poll_s: 1
lease_s: 20
stop_lead_s: 8
backoff_s: [0, 2]
checkpoint: {every_s: 2, max_stall: 1}
hang_after_s: {start: 120, step: 120, save: 120, sample: 120, evaluate: 120, other: 120}
retries: {lost: 30, node: 30}
stages:
  default: {mem_gb: 1, time: 20m}
"""
# Each call is written down; a file `<command>.fails` makes it fail, one `<command>.late` fail after it has worked.
WRAPPER = """\
#!/bin/sh
echo "$0 $*" >> "{folder}/calls"
if [ -e "{folder}/{name}.fails" ]; then cat "{folder}/{name}.fails" >&2; exit 1; fi
if mv "{folder}/{name}.late" "{folder}/{name}.was-late" 2>/dev/null; then
    "{real}" "$@" >/dev/null
    cat "{folder}/{name}.was-late" >&2
    exit 1
fi
exec "{real}" "$@"
"""


@dataclass
class Commands:
    """Slurm's commands as stx finds them on PATH: the real ones, behind scripts that count calls and can fail."""

    folder: Path

    def make(self) -> None:
        self.folder.mkdir()
        for name in COMMANDS:
            script = self.folder / name
            script.write_text(WRAPPER.format(folder=self.folder, name=name, real=shutil.which(name)))
            script.chmod(0o755)

    def fail(self, name: str, words: str) -> None:
        """From now on the command fails, and does nothing."""
        (self.folder / f"{name}.fails").write_text(f"{words}\n")

    def work(self, name: str) -> None:
        """It works again."""
        (self.folder / f"{name}.fails").unlink()

    def be_late(self, name: str, words: str) -> None:
        """The next call does its work, and fails all the same: the answer was lost."""
        (self.folder / f"{name}.late").write_text(f"{words}\n")

    def calls(self, name: str) -> int:
        """How often it was called."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return sum(Path(line.split()[0]).name == name for line in lines)


@dataclass
class OnSlurm(OnCluster):
    """A store, a cluster file, and stx on a real Slurm."""

    cluster: DevCluster
    commands: Commands

    def jobs(self) -> dict[str, str]:
        """State of every job that is not over, by its name."""
        lines = self.cluster.command("squeue", "-h", "-o", "%j %T").splitlines()
        return dict(line.split() for line in lines if line.startswith("stx-"))

    def processes(self, program: str) -> list[int]:
        """Processes of attempts of this store that run a program of ours."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    words = (entry / "cmdline").read_bytes().decode().split("\0")
                except OSError:
                    continue
                if program in words and any(str(self.stx.store) in word for word in words):
                    found.append(int(entry.name))
        return found


def on_slurm_of(stx: Stx, devcluster: DevCluster) -> OnSlurm:
    """stx with a store of its own on this cluster."""
    commands = Commands(stx.folder / "commands")
    commands.make()
    path = f"{commands.folder}:{os.environ['PATH']}"
    stx.env |= {"SLURM_CONF": str(devcluster.conf), "PATH": path}
    made = OnSlurm(stx, devcluster, commands)
    made.file.write_text(CLUSTER)
    return made


@pytest.fixture
def slurm(stx: Stx, devcluster: DevCluster) -> Iterator[OnSlurm]:
    """On a cluster whose jobs are all gone, before and after, and whoever would submit more."""
    devcluster.clean()
    yield on_slurm_of(stx, devcluster)
    stx.end()
    devcluster.clean()


@pytest.fixture
def slurm_with_latents(with_latents: Stx, devcluster: DevCluster) -> Iterator[OnSlurm]:
    """The same, with images, autoencoder and latents of the micro experiment finished."""
    devcluster.clean()
    yield on_slurm_of(with_latents, devcluster)
    with_latents.end()
    devcluster.clean()
