"""One small job on a compute node, for `stx doctor`: does the node see the store as this machine does, have a Python
with torch, and reach the controller? One core, one minute, where the default stage's jobs go.

What it looks at is jobs/launchers/slurm/probe.py, copied into a folder of the store that is removed again.
"""

import contextlib
import os
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs import files, typed
from jobs.launchers.slurm import commands, probe, queue
from jobs.launchers.slurm.commands import SlurmError
from stx.config.cluster import Cluster
from stx.config.slurm import Slurm
from stx.paths import Store
from stx.report.words import plural
from stx.verbs.check import Check, fail, good, warn
from stx.verbs.store_checks import nearest

STARTS_WITHIN_S = 60.0
ENDS_WITHIN_S = 90.0  # its limit, and what Slurm takes to end it
MEMORY_GB = 4.0
SKEW_S = 5.0
LITTLE_TEMP_GB = 2.0
SLOW_MS = 100.0
KEPT_QUIET = "stx doctor --no-probe leaves this out"


@dataclass
class Probe:
    """The job and what came of it: `submits` says whether jobs may submit jobs from there; None: not known."""

    cluster: Cluster
    store: Store
    wait_s: float = STARTS_WITHIN_S
    clock: Callable[[], float] = time.monotonic
    submits: bool | None = None
    _job: str = field(default="", init=False)

    def run(self) -> Iterator[Check]:
        """Its findings, as soon as they are there; nothing is left behind."""
        folder = nearest(self.store.root) / f".doctor-{secrets.token_hex(4)}"
        name = f"stx-doctor-{folder.name[-8:]}"
        try:
            folder.mkdir()
            yield from self._look(folder, name)
        finally:
            with contextlib.suppress(SlurmError):
                if self._job:
                    commands.run(["scancel", self._job])
            shutil.rmtree(folder, ignore_errors=True)

    def _look(self, folder: Path, name: str) -> Iterator[Check]:
        shutil.copyfile(probe.__file__, folder / "probe.py")
        files.publish(folder / "hello", name.encode())
        ahead = time.time() - (folder / "hello").stat().st_mtime
        (folder / "job.sh").write_text(script(self.cluster, folder, name=name), encoding="utf-8")
        try:
            self._job = commands.run(["sbatch", "--parsable", str(folder / "job.sh")]).strip().partition(";")[0]
        except SlurmError as error:
            yield warn("probe job", f"it was not accepted: {error}", f"real jobs may fare alike; {KEPT_QUIET}")
            return
        row, late = self._wait(folder)
        seen = _seen(folder)
        if seen is None:
            yield _nothing_seen(row, folder, waited_s=self.wait_s, late=late)
            return
        self.submits = not any(seen.get("submits", {"": "unknown"}).values())
        yield from read(seen, hello=name, ahead_s=ahead, cluster=self.cluster)

    def _wait(self, folder: Path) -> tuple[queue.Row | None, bool]:
        """Until it has spoken, has ended, or takes too long; its last row, and whether it was too late."""
        began, started = self.clock(), 0.0
        row: queue.Row | None = None
        while True:
            rows = queue.parse(commands.run([*queue.command(str(os.geteuid())), f"--jobs={self._job}"]))
            row = rows[0] if rows else row
            now = self.clock()
            if (folder / "seen.json").exists() or not rows or row is None or row.state in queue.ENDED:
                return row, False
            started = started or (now if row.state in queue.RUNNING else 0.0)
            if now - began > self.wait_s and not started:
                return row, True
            if started and now - started > ENDS_WITHIN_S:
                return row, True
            time.sleep(1.0)


def script(cluster: Cluster, folder: Path, *, name: str) -> str:
    """The batch script: what the default stage's jobs ask for, but for their size."""
    asked = cluster.scheduler("default")
    options = {
        "job-name": name,
        "output": str(folder / "job.out"),
        "chdir": str(folder),
        "nodes": "1",
        "ntasks": "1",
        "cpus-per-task": "1",
        "mem": f"{round(min(MEMORY_GB, cluster.resources('default').mem_gb) * 1024)}M",
        "time": "1",
        **_named(asked),
    }
    lines = [f"#SBATCH --{key}={shlex.quote(value)}" for key, value in options.items()]
    python = asked.python or sys.executable
    argv = ["srun", "--cpus-per-task=1", *asked.srun, python, "-P", str(folder / "probe.py"), str(folder)]
    return "\n".join(["#!/bin/bash", *lines, "#SBATCH --no-requeue", *asked.setup, shlex.join(argv), ""])


def _named(asked: Slurm) -> dict[str, str]:
    names = ("partition", "account", "qos", "constraint", "reservation")
    found = {name: str(value) for name in names if (value := getattr(asked, name)) is not None}
    return found | ({"exclude": ",".join(asked.exclude)} if asked.exclude else {})


def _seen(folder: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        return dict(typed.mapping(files.read(folder / "seen.json") or b""))
    return None


def _nothing_seen(row: queue.Row | None, folder: Path, *, waited_s: float, late: bool) -> Check:
    """It did not start in time, or it ended without a word."""
    if row is not None and late and row.state == "PENDING":
        words = row.words or "the scheduler has not looked at it yet"
        soon = f", expected to start {row.expected}" if row.expected else ""
        return warn(
            "probe job", f"it did not start within {waited_s:g} s: {words}{soon}", f"try again, or {KEPT_QUIET}"
        )
    said = (files.tail(folder / "job.out", 4096).decode(errors="replace").strip().splitlines() or [""])[-1]
    where = f" on {row.where}" if row is not None and row.where else ""
    ended = "did not end" if late else "ended"
    words = f"it {ended}{where} without a word" + (f"; it printed: {said}" if said else "")
    return fail("probe job", words, f"is {folder.parent} mounted there, and is this Python? slurm.setup, slurm.python")


def read(seen: Mapping[str, Any], *, hello: str, ahead_s: float, cluster: Cluster) -> Iterator[Check]:
    """What the node has written, as findings. `ahead_s`: this machine's clock against the file server's."""
    wrong: Mapping[str, str] = seen.get("wrong", {})
    where = seen.get("node") or seen["host"]
    yield good("node", f"{where} ran a probe: {seen['cores']} cores and {_memory(seen)} seen, {_gpus(seen)}")
    yield from _store(seen, wrong, hello=hello)
    yield _clock(seen, ahead_s=ahead_s)
    yield from _python(seen, wrong)
    if (free := seen.get("temp_gb")) is not None and free < LITTLE_TEMP_GB:
        yield warn("node /tmp", f"{free:.1f} GB free for temporary files", "export TMPDIR=... in slurm.setup")
    said = seen.get("submits", {})
    if "submits" in wrong or any(said.values()):
        words = "; ".join(f"{name}: {word}" for name, word in said.items() if word) or wrong.get("submits", "")
        yield good("node submits", f"no: {' '.join(words.split())}; workers need it not, a coordinator there does")
    else:
        yield good("node submits", "yes: squeue and sbatch answer there, so a coordinator may live in a job")


def _store(seen: Mapping[str, Any], wrong: Mapping[str, str], *, hello: str) -> Iterator[Check]:
    if seen.get("hello") != hello:
        words = f"it does not see what was written here: {wrong.get('hello', 'other bytes')}"
        yield fail("node store", words, "the same file system at the same path on all nodes")
        return
    for name, what in (("rename", "write, fsync and rename"), ("link", "hard links, first wins, across machines")):
        if name in wrong:
            yield fail("node store", f"{what}: {wrong[name]}", "another file system for the store: --store DIR")
    if not wrong.keys() & {"rename", "link"}:
        each = float(seen["rename"])
        words = f"written, renamed and linked there as here; {each:.1f} ms for one durable write; the first link wins"
        slow = warn("node store", words, "a slow file system: poll_s >= 10, checkpoint.every_s >= 600")
        yield slow if each > SLOW_MS else good("node store", words)
    if seen.get("nofollow") is not True:
        words = f"O_NOFOLLOW does not refuse a symbolic link: {wrong.get('nofollow', 'it was followed')}"
        yield warn("node store", words, "share this store only with people whom you trust")


def _clock(seen: Mapping[str, Any], *, ahead_s: float) -> Check:
    if "clock_ahead_s" not in seen:
        return warn("node clock", f"not known: {seen.get('wrong', {}).get('clock_ahead_s')}", "look at the store")
    skew = float(seen["clock_ahead_s"]) - ahead_s
    words = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this machine's, by the file server's"
    if abs(skew) > SKEW_S:
        return warn(
            "node clock", words, "no decision depends on it; ages in `stx status` are off; the site should mend it"
        )
    return good("node clock", words)


def _python(seen: Mapping[str, Any], wrong: Mapping[str, str]) -> Iterator[Check]:
    modules = seen.get("modules", {})
    torch = modules.get("torch", {"error": wrong.get("modules", "not tried")})
    if "error" in torch:
        words = f"Python {seen['python']} ({seen['executable']}) cannot import torch: {torch['error']}"
        yield fail("node python", words, "slurm: {setup: [module load ..., source .../activate], python: ...}")
        return
    yield good("node python", f"{seen['python']} with torch {torch['version']}, imported in {torch['seconds']:.1f} s")


def _memory(seen: Mapping[str, Any]) -> str:
    return f"{seen['memory_gb']:.0f} GB of memory" if "memory_gb" in seen else "memory unknown"


def _gpus(seen: Mapping[str, Any]) -> str:
    names = seen.get("gpus") or []
    return (
        f"{plural(len(names), 'GPU')} ({', '.join(sorted(set(names)))})"
        if names
        else "no GPU shown to a job without one"
    )
