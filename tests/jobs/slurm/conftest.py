"""The Slurm launcher, with the commands of the test cluster on PATH and nothing of a surrounding job."""

import os
from collections.abc import Iterator

import pytest

from jobs.launchers.slurm import SlurmLauncher


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No variable of a job that the tests themselves may run in."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def slurm(devcluster, outside) -> Iterator[SlurmLauncher]:
    outside.setenv("SLURM_CONF", str(devcluster.conf))
    yield SlurmLauncher()
    devcluster.command("scancel", "--user", str(os.getuid()))
