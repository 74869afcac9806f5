"""The Ray launcher on the test cluster. No test leaves a placement group, or a process that knows its folder."""

import json
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobs import files, processes
from jobs.contract import prepare, until
from jobs.files import AttemptDir
from jobs.launchers.ray import RayLauncher
from jobs.spec import JobSpec
from tests.jobs.conftest import knows
from tests.ray_cluster import RayCluster


@pytest.fixture
def on_ray(raycluster: RayCluster) -> Iterator[RayLauncher]:
    """Without waiting for answers that are not older than some time: tests look at once."""
    launcher = RayLauncher(raycluster.address, lambda: raycluster.where)
    yield launcher
    for group in jobs_of(launcher):
        launcher._ask("remove", group=group)
    until(lambda: not jobs_of(launcher), "no job is left")
    launcher.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder for attempts; soon after the end no process that was told about it may live."""
    path = tmp_path / "attempts"
    path.mkdir()
    yield path
    try:
        until(lambda: not left(path), "no process is left of the test")
    finally:
        for pid in left(path):
            os.kill(pid, signal.SIGKILL)


def prepare_as(folder: Path, mode: str, **size: object) -> JobSpec:
    """A job of the contract of another size."""
    spec = prepare(folder, mode)
    return rewritten(spec, resources=replace(spec.resources, **size))


def rewritten(spec: JobSpec, **changes: object) -> JobSpec:
    """Another job in its place, before it is submitted."""
    changed = replace(spec, **changes)
    files.write(AttemptDir(spec.attempt_dir).intent, json.dumps({"tag": spec.tag, "job": changed.dump()}).encode())
    return changed


def jobs_of(launcher: RayLauncher) -> list[dict[str, object]]:
    """All that hold a place, or wait for one."""
    found: list[dict[str, object]] = launcher._ask("groups", tags=None)
    return found


def actor_of(attempt: AttemptDir, rank: int) -> int:
    """The process of a rank's actor, as its supervisor knows it."""
    log = next(attempt.scheduler_logs.glob(f"*_{rank}_log.out")).read_text()
    found = re.search(r"actor with pid=(\d+)", log)
    assert found is not None, log
    return int(found[1])


def supervisor_of(attempt: AttemptDir, rank: int) -> int:
    """The process of a rank's supervisor: its parent."""
    pid = attempt.alive(rank).read_text().strip()
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def left(path: Path) -> list[int]:
    """Processes with this path on their command lines or in their environments; Ray's own have neither."""
    return [process.pid for process in processes.every() if knows(process.pid, path)]
