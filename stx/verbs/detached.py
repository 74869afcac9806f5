"""The coordinator as a process of its own on this machine: it outlives the terminal and the shell of its submit."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from jobs import files
from stx import records
from stx.coordinator import lease
from stx.coordinator.snapshot import Code
from stx.errors import StxError
from stx.verbs import console
from stx.verbs.plan import Planned
from stx.verbs.refuse import path_with
from stx.verbs.wishes import Wishes

START_LIMIT_S = 600


def start(wishes: Wishes, planned: Planned, small: Planned | None, *, code: Code) -> int:
    """Start the same submit in a session of its own; return once it holds the lease (of the smoke run, if one goes
    before), or with its error.
    """
    first = planned if small is None else small
    log = planned.directory.log
    with records.no_links():
        for folder in (planned.store.experiments, log.parent):
            files.make_dir(folder)
    argv = [sys.executable, "-m", "stx.cli", "submit", str(wishes.file.absolute()), "--foreground", "--update"]
    argv += [part for one in wishes.sets for part in ("--set", one)]
    argv += ["--store", str(planned.store.root)] + (["--accept-code"] if wishes.accept_code else [])
    argv += ["--smoke"] if small is not None else []
    argv += ["--cluster", wishes.cluster] if wishes.cluster else []
    env = os.environ | {"PYTHONPATH": path_with(code.path)}
    with records.no_links(), files.open_log(log) as stream:
        start = stream.tell()
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=env, start_new_session=True
        )
    limit = time.monotonic() + START_LIMIT_S
    while time.monotonic() < limit:
        holder = lease.holder(first.directory)
        if child.poll() is not None:
            return _ended_at_once(child.returncode, log=log, start=start, name=planned.experiment.name)
        if holder is not None and holder.pid == child.pid:
            console.say(
                f"detached: process {child.pid} on {socket.gethostname()} drives {first.experiment.name}; log {log}"
            )
            attach = [f"{wishes.again}   (attaches)"] if small is None else []
            console.next_commands(f"stx status {first.experiment.name} --watch", *attach)
            return 0
        time.sleep(0.1)
    raise StxError("the detached coordinator did not take the lease in time", where=str(log))


def _ended_at_once(returncode: int, *, log: Path, start: int, name: str) -> int:
    """It had nothing to do, or it refused: its words are ours."""
    with log.open("rb") as stream:
        stream.seek(start)
        console.say(stream.read().decode(errors="replace").rstrip())
    if returncode == 0:
        console.next_commands(f"stx status {name}", f"stx report {name}")
    return returncode if returncode >= 0 else 1
