"""What is missing is named by its package, and nothing is installed that may not be."""

from pathlib import Path

import pytest

from slurm.devcluster import install
from slurm.devcluster.errors import DevclusterError


def test_what_is_missing_is_named_by_its_debian_package(tmp_path: Path) -> None:
    assert install.missing(accounting=False, path=str(tmp_path)) == ["munge", "slurm-wlm"]
    assert install.missing(accounting=True, path=str(tmp_path)) == ["mariadb-server", "munge", "slurm-wlm", "slurmdbd"]


def test_one_missing_program_is_enough_for_its_package(tmp_path: Path) -> None:
    for program in ("munged", "slurmctld", "sbatch"):
        (tmp_path / program).touch(mode=0o755)
    assert install.missing(accounting=False, path=str(tmp_path)) == ["slurm-wlm"]


def test_who_may_not_install_is_told_the_command_for_root(tmp_path: Path) -> None:
    with pytest.raises(DevclusterError, match="apt-get install --no-install-recommends munge slurm-wlm") as caught:
        install.ensure(accounting=False, path=str(tmp_path), may_install=False)
    assert caught.value.exit_code == 2
