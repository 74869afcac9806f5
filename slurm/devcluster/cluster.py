"""Bring a devcluster up, end it, and break parts of it on purpose."""

import dataclasses
import json
import os
import pwd
import secrets
import subprocess
import time
from collections.abc import Mapping
from typing import Any

from slurm.devcluster import accounting, config, daemons, install, ports
from slurm.devcluster import folder as folders
from slurm.devcluster.config import Ports, Site
from slurm.devcluster.errors import DevclusterError
from slurm.devcluster.folder import Folder

CONTROLLER = "slurmctld"
_IDLE_S = 60
_ANSWER_S = 30
_USABLE = ("idle", "mixed", "allocated", "completing")


def up(folder: Folder, site: Site) -> dict[str, Any]:
    """Start a cluster and wait until all its nodes are idle; what it is, as `up --json` prints it.

    Raises:
        DevclusterError: it is up already, the folder cannot be used, programs are missing, or a daemon did not start:
            then what did start is ended again, and the end of the right log is in the message.
    """
    folders.check_path(folder, site.all_nodes)
    folder.path.mkdir(parents=True, exist_ok=True)
    with folders.locked(folder):
        if folder.run.is_dir() and (names := daemons.running(folder)):
            raise DevclusterError(
                f"a devcluster is up in {folder.path} ({', '.join(names)})\n  use it: . {folder.env}\n"
                f"  end it: slurm/devcluster/down --dir {folder.path}"
            )
        install.ensure(accounting=site.accounting, path=install.path(), may_install=install.may_install())
        version = install.version()
        folders.clear(folder)
        record = _configure(folder, site, version=version)
        try:
            _start_all(folder, site)
        except BaseException:
            _end_all(folder)
            raise
    return record


def down(folder: Folder) -> list[str]:
    """End the cluster's jobs and daemons; the names of the daemons that ran. Logs stay until the next `up`.

    Raises:
        DevclusterError: none is up.
    """
    folder.read()
    with folders.locked(folder):
        ended = _end_all(folder)
    if not ended:
        raise DevclusterError(f"{folder.path}: no devcluster is up here\n  slurm/devcluster/up starts one")
    return ended


def node_down(folder: Folder, node: str, *, daemon_only: bool) -> int:
    """Kill a node: its slurmd and, unless `daemon_only`, every process of its jobs; how many of those there were.

    Slurm sees it as DOWN when slurmd has not answered for SlurmdTimeout, 15 s.
    """
    _known(folder, node)
    with folders.locked(folder):
        if not daemons.end(folder, _slurmd(node), at_once=True):
            raise DevclusterError(f"{node} is down already\n  slurm/devcluster/node up {node}")
        return 0 if daemon_only else daemons.end_jobs(folder, node=node)


def node_up(folder: Folder, node: str) -> None:
    """Start a node's slurmd again, and wait until Slurm has it back."""
    _known(folder, node)
    with folders.locked(folder):
        if daemons.look(folder, _slurmd(node)):
            raise DevclusterError(f"{node} is up already")
        _start_slurmd(folder, node)
        _wait_until_back(folder, [node])


def controller_down(folder: Folder) -> None:
    """Kill slurmctld: no Slurm command answers until `controller_up`; jobs that run go on."""
    folder.read()
    with folders.locked(folder):
        if not daemons.end(folder, CONTROLLER, at_once=True):
            raise DevclusterError("slurmctld is down already\n  slurm/devcluster/controller up")


def controller_up(folder: Folder) -> None:
    """Start slurmctld again, from its own state."""
    folder.read()
    with folders.locked(folder):
        if daemons.look(folder, CONTROLLER):
            raise DevclusterError("slurmctld is up already")
        _start_controller(folder)


def _configure(folder: Folder, site: Site, *, version: str) -> dict[str, Any]:
    free = ports.free(2 + len(site.all_nodes))
    own = Ports(controller=free[0], database=free[1], nodes=dict(zip(site.all_nodes, free[2:], strict=True)))
    user = pwd.getpwuid(os.geteuid()).pw_name
    # A thousand further every ten seconds, and round in a week: a job id of the last cluster means nothing in this one.
    first_job_id = int(time.time()) // 10 % 60_000 * 1000 + 1
    slurm_conf = config.slurm_conf(site, folder, own, user=user, first_job_id=first_job_id)
    folder.slurm_conf.write_text(slurm_conf, encoding="utf-8")
    if site.accounting:
        folder.slurmdbd_conf.touch(mode=0o600)
        folder.slurmdbd_conf.write_text(config.slurmdbd_conf(folder, own, user=user), encoding="utf-8")
    if cgroup_conf := config.cgroup_conf(install.numbers(version)):
        folder.cgroup_conf.write_text(cgroup_conf, encoding="utf-8")
    folder.env.write_text(f"export SLURM_CONF='{folder.slurm_conf}'\n", encoding="utf-8")
    record: dict[str, Any] = {
        "dir": str(folder.path),
        "slurm_conf": str(folder.slurm_conf),
        "nodes": site.all_nodes,
        "partitions": site.partitions,
        "accounting": site.accounting,
        "version": version,
        "site": dataclasses.asdict(site),
    }
    folder.cluster.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


def _start_all(folder: Folder, site: Site) -> None:
    _start_munge(folder)
    if site.accounting:
        user = pwd.getpwuid(os.geteuid()).pw_name
        accounting.start(folder, site, env=_environment(folder), user=user)
    _start_controller(folder)
    for node in site.all_nodes:
        _start_slurmd(folder, node)
    _wait_until_back(folder, site.all_nodes)


def _end_all(folder: Folder) -> list[str]:
    """The controller first, which would try to reach the nodes; what the nodes need, last."""
    names = daemons.running(folder)[::-1]
    nodes = [name for name in names if name.startswith(_slurmd(""))]
    daemons.end(folder, CONTROLLER)
    for name in nodes:
        daemons.end(folder, name, at_once=True)
    daemons.end_jobs(folder)
    for name in names:
        daemons.end(folder, name)
    return names


def _start_munge(folder: Folder) -> None:
    folder.munge_key.touch(mode=0o600)
    folder.munge_key.write_bytes(secrets.token_bytes(128))
    own = [f"--socket={folder.munge_socket}", f"--key-file={folder.munge_key}", f"--log-file={folder.log('munged')}"]
    kept = [f"--pid-file={folder.munge}/pid", f"--seed-file={folder.munge}/seed"]
    daemons.start(folder, "munged", ["munged", "--foreground", "--force", *own, *kept], env=_environment(folder))
    daemons.wait_for_socket(folder, "munged", folder.munge_socket, limit_s=_ANSWER_S)


def _start_controller(folder: Folder) -> None:
    daemons.start(folder, CONTROLLER, ["slurmctld", "-D", "-f", str(folder.slurm_conf)], env=_environment(folder))
    until = time.monotonic() + _ANSWER_S
    while _command(folder, "scontrol", "ping").returncode:
        if daemons.look(folder, CONTROLLER) is None or time.monotonic() > until:
            raise DevclusterError(f"slurmctld does not answer\n{daemons.tail(folder, CONTROLLER)}")
        time.sleep(0.1)


def _start_slurmd(folder: Folder, node: str) -> None:
    argv = ["slurmd", "-D", "-N", node, "-f", str(folder.slurm_conf)]
    daemons.start(folder, _slurmd(node), argv, env={**_environment(folder), daemons.NODE: node})


def _wait_until_back(folder: Folder, nodes: list[str]) -> None:
    """Until Slurm says that these nodes can take jobs: idle, or busy again already.

    A node's state has a mark behind it (idle*, down*) as long as slurmd has not answered.
    """
    until = time.monotonic() + _IDLE_S
    while waiting := _not_usable(folder, nodes):
        ended = [node for node in waiting if daemons.look(folder, _slurmd(node)) is None]
        if ended or time.monotonic() > until:
            node = (ended or waiting)[0]
            why = "its slurmd ended" if ended else f"not idle within {_IDLE_S} s: {_states(folder).get(node)}"
            raise DevclusterError(f"node {node}: {why}\n{daemons.tail(folder, _slurmd(node))}")
        time.sleep(0.1)


def _not_usable(folder: Folder, nodes: list[str]) -> list[str]:
    states = _states(folder)
    return [node for node in nodes if states.get(node) not in _USABLE]


def _states(folder: Folder) -> dict[str, str]:
    """The state of each node, as sinfo says it in long."""
    lines = _command(folder, "sinfo", "-h", "-N", "-o", "%N %T").stdout.splitlines()
    return dict(line.split(maxsplit=1) for line in lines)


def _known(folder: Folder, node: str) -> None:
    nodes = folder.read()["nodes"]
    if node not in nodes:
        raise DevclusterError(f"no node {node!r}: there are {' '.join(nodes)}", exit_code=2)


def _slurmd(node: str) -> str:
    return f"slurmd.{node}"


def _command(folder: Folder, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, env=_environment(folder), capture_output=True, text=True, check=False)


def _environment(folder: Folder) -> Mapping[str, str]:
    """What a daemon sees: nothing of the caller's, who may be inside another cluster's job."""
    kept = {name: os.environ[name] for name in ("HOME", "USER", "LOGNAME", "LANG", "TZ") if name in os.environ}
    return {"PATH": install.path(), **kept, "SLURM_CONF": str(folder.slurm_conf)}
