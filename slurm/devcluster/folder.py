"""The one folder of a devcluster: where everything of it is, and who may use it.

cluster.json   what `up` was asked for: marks the folder as a devcluster's
env            to be sourced: export SLURM_CONF=...
slurm.conf     and slurmdbd.conf, cgroup.conf
run/           <daemon>.json: pid, start time, boot and command line of each daemon
logs/ spool/ state/ munge/ database/
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slurm.devcluster.errors import DevclusterError

_LONGEST_SOCKET_PATH = 107
# A step's socket, by the longest numbers that Slurm gives.
_LONGEST_STEP = "67043328.4294967295"


class Folder:
    """Names inside the folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cluster = path / "cluster.json"
        self.env = path / "env"
        self.slurm_conf = path / "slurm.conf"
        self.slurmdbd_conf = path / "slurmdbd.conf"
        self.cgroup_conf = path / "cgroup.conf"
        self.lock = path / "lock"
        self.run = path / "run"
        self.logs = path / "logs"
        self.spool = path / "spool"
        self.state = path / "state"
        self.munge = path / "munge"
        self.munge_socket = path / "munge" / "socket"
        self.munge_key = path / "munge" / "key"
        self.database = path / "database"
        self.database_socket = path / "database" / "socket"

    def log(self, daemon: str) -> Path:
        """The log that a daemon writes."""
        return self.logs / f"{daemon}.log"

    def output(self, daemon: str) -> Path:
        """What a daemon prints: until it has opened its log, and when it crashes."""
        return self.logs / f"{daemon}.out"

    def read(self) -> dict[str, Any]:
        """What `up` was asked for.

        Raises:
            DevclusterError: no devcluster was ever made here.
        """
        try:
            record: dict[str, Any] = json.loads(self.cluster.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DevclusterError(f"{self.path}: no devcluster is up here\n  slurm/devcluster/up starts one") from None
        return record


def default_path() -> Path:
    """Short, as sockets have short names, and each user's own."""
    return Path(f"/tmp/stx-devcluster-{os.getuid()}")  # noqa: S108 - its owner is checked before it is used


def check_path(folder: Folder, nodes: list[str]) -> None:
    """Refuse a folder that is another's, that holds other things, or whose sockets would have too long names.

    Raises:
        DevclusterError: exit code 2, and what to do.
    """
    path = folder.path
    node = max(nodes, key=len)
    longest = len(str(folder.spool / node / f"{node}_{_LONGEST_STEP}"))
    if longest > _LONGEST_SOCKET_PATH:
        over = longest - _LONGEST_SOCKET_PATH
        raise DevclusterError(
            f"{path}: {over} characters too long: a socket's path may have {_LONGEST_SOCKET_PATH}, "
            f"and the longest in it would have {longest}\n  give a shorter folder: --dir /tmp/slurm",
            exit_code=2,
        )
    if not path.exists():
        return
    if path.is_symlink() or not path.is_dir() or path.stat().st_uid != os.geteuid():
        raise DevclusterError(f"{path}: no folder of yours\n  give another: --dir DIR", exit_code=2)
    if not folder.cluster.exists() and any(entry != folder.lock for entry in path.iterdir()):
        raise DevclusterError(f"{path}: holds other things\n  give a new or empty folder: --dir DIR", exit_code=2)


def clear(folder: Folder) -> None:
    """Remove what an earlier cluster left here, and make the empty folders of the next."""
    folders = (folder.run, folder.logs, folder.spool, folder.state, folder.munge, folder.database)
    for entry in folders:
        shutil.rmtree(entry, ignore_errors=True)
    for entry in (folder.env, folder.slurm_conf, folder.slurmdbd_conf, folder.cgroup_conf, folder.cluster):
        entry.unlink(missing_ok=True)
    for entry in folders:
        entry.mkdir()
    folder.munge.chmod(0o755)
    folder.database.chmod(0o700)


@contextlib.contextmanager
def locked(folder: Folder) -> Iterator[None]:
    """One command at a time.

    Raises:
        DevclusterError: another works here now.
    """
    with folder.lock.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DevclusterError(f"{folder.path}: another command works here; try again when it is done") from None
        yield
