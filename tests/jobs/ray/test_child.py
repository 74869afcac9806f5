"""A supervisor under something that plays the actor: what each of the two sees when the other one goes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from jobs import contract, outcome, processes
from jobs.contract import until
from jobs.files import AttemptDir
from jobs.launchers.ray.child import Child
from jobs.spec import JobSpec, Result
from tests.jobs.programs import ROOT

COMMAND = (sys.executable, "-P", "-m", "jobs.exec", "--ray")


def told(spec: JobSpec) -> Mapping[str, str]:
    """As the actor tells it."""
    return {
        "PYTHONPATH": ROOT,
        "STX_RAY_JOB": "session:1",
        "STX_RAY_TAG": spec.tag,
        "STX_RAY_RANK": "0",
        "STX_RAY_GPUS": "3",
        "STX_RAY_NODE": "n1",
        "STX_RAY_NODES": "n1",
    }


def begin(spec: JobSpec) -> Child:
    return Child(COMMAND, spec.attempt_dir, env=told(spec), log=AttemptDir(spec.attempt_dir).supervisor_log)


def alive(spec: JobSpec) -> int:
    """The pid of its rank, once that has its handlers."""
    path = AttemptDir(spec.attempt_dir).alive(0)
    until(path.exists, "the rank is alive")
    return int(path.read_text())


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_supervisor_says_how_it_ended_and_is_nobodys_child(folder):
    spec = contract.prepare(folder, "wait")
    child = begin(spec)
    supervisor = parent(alive(spec))
    assert processes.look(supervisor).session == supervisor, "in a session of its own"
    assert parent(supervisor) != os.getpid(), "a Ray worker that exits kills its children"
    started = json.loads(AttemptDir(spec.attempt_dir).started.read_bytes())
    assert (started["job_id"], started["nodes"], started["pid"]) == ("session:1", "n1", supervisor)
    assert not child.is_over
    child.signal(signal.SIGUSR2)
    assert child.wait(contract.PATIENCE_S) and child.code == 0
    assert outcome.read(AttemptDir(spec.attempt_dir), 0).result is Result.YIELDED


def test_a_signal_of_the_first_moment_is_kept_for_it(folder):
    spec = contract.prepare(folder, "wait")
    child = begin(spec)
    child.signal(signal.SIGUSR2)
    assert child.wait(contract.PATIENCE_S) and child.code == 0


def test_a_killed_supervisor_takes_its_rank_along(folder):
    spec = contract.prepare(folder, "stubborn")
    child = begin(spec)
    rank = alive(spec)
    os.kill(parent(rank), signal.SIGKILL)
    assert child.wait(contract.PATIENCE_S) and child.code is None
    assert not Path(f"/proc/{rank}/cwd").exists()


ACTOR = """
import json, sys, time
from pathlib import Path
from jobs.launchers.ray.child import Child
command, folder, env = json.loads(sys.argv[1])
Child(command, Path(folder), env=env, log=Path(folder) / "supervisor.log")
time.sleep(3600)
"""


@pytest.mark.parametrize("mode", ["wait", pytest.param("stubborn", marks=pytest.mark.slow)])
def test_where_the_actor_is_killed_the_rank_saves_or_is_ended(mode, folder):
    spec = contract.prepare(folder, mode, stop_lead_s=2.0)
    argument = json.dumps([COMMAND, str(spec.attempt_dir), dict(told(spec))])
    actor = subprocess.Popen([sys.executable, "-c", ACTOR, argument], env={**os.environ, "PYTHONPATH": ROOT})
    rank = alive(spec)
    supervisor = parent(rank)
    actor.kill()
    actor.wait()
    began = time.monotonic()
    until(lambda: not Path(f"/proc/{supervisor}/cwd").exists(), "the supervisor has ended")
    assert not Path(f"/proc/{rank}/cwd").exists()
    said = outcome.read(AttemptDir(spec.attempt_dir), 0)
    if mode == "wait":
        assert said is not None and said.result is Result.YIELDED
        assert time.monotonic() - began < 10.0
    else:
        assert said is None and time.monotonic() - began > 2.0
