"""The programs of Slurm: found, or installed through apt when root, or asked for."""

import os
import re
import shutil
import subprocess

from slurm.devcluster.errors import DevclusterError

# Daemons are in sbin, which a plain user's path may lack.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SLURM = {"munged": "munge", "slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "sbatch": "slurm-wlm"}
_ACCOUNTING = {"slurmdbd": "slurmdbd", "mariadbd": "mariadb-server", "mariadb-install-db": "mariadb-server"}


def path() -> str:
    """The search path: the caller's, and the folders of daemons."""
    return f"{os.environ.get('PATH', '')}:{PATH}"


def missing(*, accounting: bool, path: str) -> list[str]:
    """The Debian packages of the programs that are not on a search path, sorted."""
    wanted = {**_SLURM, **(_ACCOUNTING if accounting else {})}
    return sorted({package for program, package in wanted.items() if shutil.which(program, path=path) is None})


def may_install() -> bool:
    """Whether this user may install packages, and this system has apt to do it."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def ensure(*, accounting: bool, path: str, may_install: bool) -> list[str]:
    """Install what is missing from a search path, when that may be done; the packages that were installed.

    Raises:
        DevclusterError: exit code 2, and exactly what to install.
    """
    packages = missing(accounting=accounting, path=path)
    if not packages:
        return []
    command = f"apt-get install --no-install-recommends {' '.join(packages)}"
    if not may_install:
        lacking = "packages are missing (by their names in Debian and Ubuntu)"
        raise DevclusterError(f"{lacking}: {' '.join(packages)}\n  have root run: {command}", exit_code=2)
    # RUNLEVEL=1: the packages' scripts start no service.
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        result = subprocess.run(
            ["apt-get", "-qq", *arguments],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            said = (result.stderr or result.stdout).strip()[-2000:]
            raise DevclusterError(f"apt-get {' '.join(arguments)} failed:\n{said}\n  run: {command}", exit_code=2)
    left = missing(accounting=accounting, path=path)
    if left:
        raise DevclusterError(f"installed {' '.join(packages)}, and still have not found all of: {' '.join(left)}")
    return packages


def version() -> str:
    """Slurm's version, as `22.05.8`."""
    text = subprocess.run(
        ["slurmctld", "-V"], env={**os.environ, "PATH": path()}, capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"\d+\.\d+\S*", text)
    if found is None:
        raise DevclusterError(f"slurmctld -V says no version: {text.strip()!r}")
    return found[0]


def numbers(text: str) -> tuple[int, int]:
    """Year and month of a version: (22, 5)."""
    year, month = text.split(".")[:2]
    return int(year), int(month)
