"""The nodes of a cluster as processes of this machine: each supervisor in a session of its own, so that whoever started
them may go.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import jobs
from jobs import files, processes
from jobs.launchers.ray.up import folder as folders
from jobs.launchers.ray.up.folder import Asked, ClusterFolder, Report, Step


def start(folder: ClusterFolder, *, environment: Mapping[str, str]) -> None:
    """One supervisor per node; they outlive us."""
    asked = folders.load(Asked, folder.asked)
    assert asked is not None, "a folder is claimed by what was asked for"
    for number in range(asked.nodes):
        launch(folder, number, environment=environment).returncode = 0  # nothing to wait for, and nothing to warn of


def launch(folder: ClusterFolder, number: int, *, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """The supervisor of one node, a child of ours in a session of its own."""
    # -P: a folder named `jobs` where somebody happens to stand is not this package.
    program = [sys.executable, "-P", "-m", "jobs.launchers.ray.up.node"]
    with files.open_log(folder.log(number)) as stream:
        return subprocess.Popen(
            [*program, "--node", str(number), f"n{number + 1}", str(folder.path)],
            env={"PYTHONPATH": str(Path(jobs.__file__).parent.parent), **environment},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )


def running(folder: ClusterFolder) -> list[Report]:
    """The nodes of this machine whose supervisors run."""
    return [
        report
        for report in folder.reports()
        if report.step not in (Step.ENDED, Step.FAILED) and processes.runs(report.process)
    ]


def end(folder: ClusterFolder) -> None:
    """KILL to the supervisors, which were asked to leave and did not; their Ray goes with them."""
    for report in running(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(report.process.partition(":")[0]), signal.SIGKILL)
