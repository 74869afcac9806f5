"""Hangs and deaths of ranks of a real train stage, under its real supervisor; tests/jobs/test_hangs.py has the many
kinds of them.
"""

import json
import os
import signal
import sys
import time

import pytest

from jobs import contract, outcome, processes, supervisor
from jobs.contract import until
from jobs.spec import Cause, JobSpec, Resources
from stx import records
from tests.jobs import programs

LIMIT_S = 8.0
FEW_SECONDS = 20.0  # of which the supervisor's are: 5 until it looks, 3 for stacks, 5 from TERM to KILL
pytestmark = pytest.mark.slow


class Supervised:
    """An endless run on several ranks."""

    def __init__(self, runs, *, ranks):
        attempt = runs.attempt(ranks=ranks, wants=(8 * 10**7,), every_s=1e9)
        self.attempt = attempt.folder
        record = records.read(self.attempt.attempt)
        records.write(self.attempt.attempt, record | {"hang_after_s": record["hang_after_s"] | {"step": LIMIT_S}})
        job = JobSpec(
            tag=record["tag"],
            argv=(sys.executable, "-m", "stx.worker", "run", str(self.attempt.path)),
            attempt_dir=self.attempt.path,
            cwd=self.attempt.path,
            resources=Resources(ranks_per_node=ranks),
            start_limit_s=900.0,
        )
        self.attempt.intent.write_text(json.dumps({"job": job.dump()}))
        self.ranks = range(ranks)
        self.process = programs.start(self.attempt)

    def wait_alive(self):
        until(lambda: len(programs.pids(self.attempt)) == len(self.ranks), "all ranks are alive")

    def wait_training(self):
        while not self.attempt.metrics.exists():  # for as long as a loaded machine takes to import
            assert self.process.poll() is None, self.attempt.supervisor_log.read_text()
            time.sleep(0.1)
        until(lambda: json.loads(self.attempt.heartbeat.read_bytes())["phase"] == "step", "the heart says so")
        time.sleep(1.5)  # the watchdogs have seen it, too

    def hit(self, number, *, rank):
        self.hit_at = time.monotonic()
        os.kill(programs.pids(self.attempt)[rank], number)

    def end(self):
        """The seconds it took, and what the ranks said."""
        assert self.process.wait(contract.PATIENCE_S) == 1
        seconds = time.monotonic() - self.hit_at
        assert not [pid for pid in programs.pids(self.attempt) if processes.look(pid)]
        return seconds, [outcome.read(self.attempt, rank) for rank in self.ranks]


@pytest.fixture
def supervised(runs):
    started = []

    def start(*, ranks):
        started.append(Supervised(runs, ranks=ranks))
        return started[-1]

    yield start
    for one in started:
        one.process.send_signal(signal.SIGTERM)
        one.process.wait(contract.PATIENCE_S)


def test_a_collective_whose_sibling_is_stopped_is_a_hang_and_the_stacks_say_where(supervised):
    run = supervised(ranks=2)
    run.wait_training()
    run.hit(signal.SIGSTOP, rank=1)
    seconds, words = run.end()
    assert seconds < LIMIT_S + FEW_SECONDS
    assert words[0].cause is Cause.HANG
    assert f"in phase step for {LIMIT_S:g} s" in words[0].message
    assert " in all_" in run.attempt.stacks(0).read_text(), "all_reduce, or all_gather where it rereads what is wanted"
    assert "state T" in run.attempt.stacks(1).read_text()
    assert "stx/worker/loop.py" in run.attempt.stacks(1).read_text()


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.full)])
def test_a_rank_that_dies_in_training_is_lost_and_so_are_its_siblings(supervised, ranks):
    run = supervised(ranks=ranks)
    run.wait_training()
    run.hit(signal.SIGKILL, rank=ranks - 1)
    seconds, words = run.end()
    assert seconds < supervisor.END_GRACE_S + 5.0
    assert words[-1] is None, "the coordinator judges: LOST"
    assert {word.cause for word in words[:-1] if word} <= {Cause.LOST}


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.full)])
def test_a_rank_that_dies_while_it_imports_takes_its_siblings_along(supervised, ranks):
    run = supervised(ranks=ranks)
    run.wait_alive()
    run.hit(signal.SIGKILL, rank=ranks - 1)
    seconds, words = run.end()
    assert seconds < supervisor.END_GRACE_S + 5.0
    assert words[-1] is None
    assert {word.cause for word in words[:-1] if word} <= {Cause.LOST}
