"""The daemons of a devcluster: started in the foreground in a session of their own, ended by pid and start time.

run/<name>.json says which process a daemon is: {pid, start_time, boot_id, argv}. A process that does not match all of
it is somebody else's by now, and is left alone. A signal goes through a pidfd, so that it cannot reach a later process.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jobs import processes
from slurm.devcluster.errors import DevclusterError
from slurm.devcluster.folder import Folder

NODE = "STX_DEVCLUSTER_NODE"
_END_S = 10


def start(folder: Folder, name: str, argv: Sequence[str], *, env: Mapping[str, str]) -> None:
    """Start a daemon, and write down which process it is."""
    with folder.output(name).open("ab") as out:
        process = subprocess.Popen(
            argv,
            env=dict(env),
            cwd=folder.path,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    found = processes.look(process.pid, zombies=True)
    assert found is not None, "a child is there until it is waited for"
    record = {"pid": process.pid, "start_time": found.start_time, "boot_id": processes.boot_id(), "argv": list(argv)}
    _record(folder, name).write_text(json.dumps(record), encoding="utf-8")
    # Right after exec(2) the command line reads as empty for a moment, and the daemon would not be known as itself.
    until = time.monotonic() + _END_S
    while process.poll() is None and not _runs(process.pid, argv) and time.monotonic() < until:
        time.sleep(0.002)
    # It is meant to outlive this command: nothing to wait for, and nothing to warn of.
    process.returncode = 0


def look(folder: Folder, name: str) -> processes.Process | None:
    """The daemon's process; None when it is not running."""
    try:
        record = json.loads(_record(folder, name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    process = processes.look(record["pid"])
    same = (
        process is not None and process.start_time == record["start_time"] and record["boot_id"] == processes.boot_id()
    )
    # The second look: a name that was given again since is not ours, whatever its number and start.
    return process if same and _runs(record["pid"], record["argv"]) else None


def running(folder: Folder) -> list[str]:
    """The names of the daemons that run, in the order of their start."""
    records = sorted(folder.run.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return [record.stem for record in records if look(folder, record.stem)]


def end(folder: Folder, name: str, *, at_once: bool = False) -> bool:
    """End a daemon: TERM and, 10 s later or `at_once`, KILL; whether there was one."""
    process = look(folder, name)
    if process is None:
        return False
    _end([process], at_once=at_once)
    return True


def end_jobs(folder: Folder, *, node: str | None = None) -> int:
    """KILL what slurmd started here, on one node or on all: steps and their tasks; how many processes there were.

    They are known by their environment: this cluster's configuration, and a node, which steps have from their slurmd
    (NODE) and tasks from their step. A shell in which a person uses the cluster has the first and not the second.
    Oldest first: a step that saw its tasks die would tell slurmctld so, as no dead node does.
    """
    count = 0
    for _ in range(20):  # a task may start another while they are counted
        found = sorted((p for p in processes.every() if _of_a_job(p.pid, folder, node)), key=lambda p: p.start_time)
        if not found:
            break
        _end(found, at_once=True)
        count += len(found)
    return count


def wait_for_socket(folder: Folder, name: str, socket: Path, *, limit_s: float) -> None:
    """Wait until a daemon has made its socket.

    Raises:
        DevclusterError: it ended, or took too long; with the end of its log.
    """
    until = time.monotonic() + limit_s
    while not socket.is_socket():
        if look(folder, name) is None or time.monotonic() > until:
            raise DevclusterError(f"{name} made no socket {socket}\n{tail(folder, name)}")
        time.sleep(0.05)


def tail(folder: Folder, name: str, *, lines: int = 15) -> str:
    """The last lines of a daemon's log, for people; of what it printed, when it came to no log."""
    log = next(
        (path for path in (folder.log(name), folder.output(name)) if path.exists() and path.stat().st_size), None
    )
    if log is None:
        return f"{folder.logs}: nothing of {name}"
    text = log.read_text(encoding="utf-8", errors="replace")
    return f"the end of {log}:\n" + "\n".join(f"  {line}" for line in text.splitlines()[-lines:])


def _record(folder: Folder, name: str) -> Path:
    return folder.run / f"{name}.json"


def _runs(pid: int, argv: Sequence[str]) -> bool:
    return processes.arguments(pid)[: len(argv)] == [os.fsencode(word) for word in argv]


def _of_a_job(pid: int, folder: Folder, node: str | None) -> bool:
    if processes.variable(pid, "SLURM_CONF") != str(folder.slurm_conf):
        return False
    # The last one: ranks of stx, which Slurm's own variables are kept from.
    told = (processes.variable(pid, name) for name in (NODE, "SLURMD_NODENAME", "STX_NODE"))
    at = next(filter(None, told), None)
    return at is not None and node in (None, at)


def _end(found: Iterable[processes.Process], *, at_once: bool) -> None:
    for process in found:
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(process.pid)
            try:
                now = processes.look(process.pid)
                if now is None or now.start_time != process.start_time:
                    continue
                if not at_once:
                    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
                    if _ended(pidfd, _END_S):
                        continue
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                _ended(pidfd, _END_S)
            finally:
                os.close(pidfd)


def _ended(pidfd: int, limit_s: float) -> bool:
    return bool(select.select([pidfd], [], [], limit_s)[0])
