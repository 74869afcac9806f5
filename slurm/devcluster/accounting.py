"""Accounting, as large sites have it: MariaDB, reached by its socket only, and slurmdbd before it."""

import subprocess
import time
from collections.abc import Mapping

from slurm.devcluster import daemons
from slurm.devcluster.config import ACCOUNT, CLUSTER, Site
from slurm.devcluster.errors import DevclusterError
from slurm.devcluster.folder import Folder

_START_S = 60


def start(folder: Folder, site: Site, *, env: Mapping[str, str], user: str) -> None:
    """Start the database and slurmdbd, and make the cluster, one account and the user known there.

    Raises:
        DevclusterError: one of them did not start; with the end of its log.
    """
    _start_database(folder, env=env, user=user)
    # The client library takes the socket's name from the environment: slurmdbd.conf has no word for it.
    with_socket = {**env, "MYSQL_UNIX_PORT": str(folder.database_socket)}
    daemons.start(folder, "slurmdbd", ["slurmdbd", "-D"], env=with_socket)
    until = time.monotonic() + _START_S
    while _sacctmgr("show", "cluster", env=env).returncode:
        if daemons.look(folder, "slurmdbd") is None or time.monotonic() > until:
            raise DevclusterError(f"slurmdbd does not answer\n{daemons.tail(folder, 'slurmdbd')}")
        time.sleep(0.2)
    _require("add", "cluster", CLUSTER, env=env)
    _require("add", "account", ACCOUNT, "Description=stx", "Organization=stx", env=env)
    _require("add", "user", user, f"Account={ACCOUNT}", f"DefaultAccount={ACCOUNT}", env=env)
    if site.max_submit is not None:
        _require("modify", "qos", "normal", "set", f"MaxSubmitJobsPerUser={site.max_submit}", env=env)


def _start_database(folder: Folder, *, env: Mapping[str, str], user: str) -> None:
    data = folder.database / "data"
    common = ["--no-defaults", f"--datadir={data}", f"--user={user}"]
    install = [*common, "--auth-root-authentication-method=socket", f"--auth-root-socket-user={user}", "--skip-test-db"]
    made = subprocess.run(["mariadb-install-db", *install], env=dict(env), capture_output=True, text=True, check=False)
    folder.log("mariadb-install-db").write_text(made.stdout + made.stderr, encoding="utf-8")
    if made.returncode:
        raise DevclusterError(f"mariadb-install-db failed\n{daemons.tail(folder, 'mariadb-install-db')}")
    small = ["--innodb-buffer-pool-size=32M", "--innodb-log-file-size=16M", "--performance-schema=OFF"]
    own = [f"--socket={folder.database_socket}", "--skip-networking", f"--pid-file={folder.run}/mariadb.pid"]
    daemons.start(folder, "mariadb", ["mariadbd", *common, *own, *small], env=env)
    daemons.wait_for_socket(folder, "mariadb", folder.database_socket, limit_s=_START_S)


def _sacctmgr(*arguments: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sacctmgr", "-i", *arguments], env=dict(env), capture_output=True, text=True, check=False)


def _require(*arguments: str, env: Mapping[str, str]) -> None:
    result = _sacctmgr(*arguments, env=env)
    if result.returncode:
        raise DevclusterError(f"sacctmgr {' '.join(arguments)} failed:\n{(result.stdout + result.stderr).strip()}")
