"""Slurm's commands fail, answer late, or lie: nothing runs twice, nothing is forgotten, nothing healthy is killed."""

import json
import os
import signal
import time

import pytest

from tests.slurm_cluster import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.sampled(seconds=35)]
LINE = "{{kind: command, argv: [sh, -c, 'echo x >> {log}; sleep {seconds}; echo done > $STX_OUTPUT/a'], version: one"


@pytest.fixture
def experiment(slurm):
    """An experiment of programs that sleep; every start of one is a line of the log."""

    def make(*, points=3, seconds=2):
        log = slurm.stx.folder / "started"
        sweep = f", sweep: {{seed: {list(range(points))}}}}}"
        text = f"name: cmd\nstages:\n  a: {LINE.format(log=log, seconds=seconds)}{sweep}\n"
        path = slurm.stx.folder / "e.yaml"
        path.write_text(text)
        return path

    return make


def started(slurm):
    log = slurm.stx.folder / "started"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_a_sweep_runs_with_one_question_to_the_queue_per_poll(slurm, experiment):
    begin = time.monotonic()
    slurm.submit(experiment(points=8))
    polls = time.monotonic() - begin
    assert started(slurm) == 8
    assert len(slurm.stx.digests()) == 8
    assert slurm.commands.calls("sbatch") == 8
    assert slurm.commands.calls("squeue") <= polls + 3, "poll_s is 1"


def test_an_sbatch_that_times_out_although_the_job_was_accepted_runs_it_once(slurm, experiment):
    path = experiment(points=1)
    slurm.commands.be_late(
        "sbatch", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
    )
    slurm.submit(path)
    assert started(slurm) == 1, "the adopted job ran its worker, and no other was needed"
    assert slurm.commands.calls("sbatch") == 1
    assert set(slurm.stx.attempts().values()) == {1}


def test_an_sbatch_that_is_refused_for_now_is_tried_again_with_the_same_attempt(slurm, experiment):
    path = experiment(points=2, seconds=1)
    slurm.commands.fail("sbatch", "sbatch: error: Batch job submission failed: Unable to contact slurm controller")
    process = slurm.start(path)
    wait_for(lambda: slurm.commands.calls("sbatch") >= 2, limit=60)
    slurm.commands.work("sbatch")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, f"{out}\n{err}"
    assert "takes no more jobs for now" in err
    assert started(slurm) == 2
    assert set(slurm.stx.attempts().values()) == {1}


def test_an_sbatch_that_is_refused_for_good_fails_the_stage_in_slurms_words(slurm, experiment):
    slurm.commands.fail("sbatch", "sbatch: error: Batch job submission failed: Invalid account or account/partition")
    result = slurm.submit(experiment(points=1), expect=3)
    assert "SETUP" in result.stderr and "Invalid account" in result.stderr


def test_a_queue_that_cannot_be_asked_for_a_while_kills_nothing(slurm, experiment):
    process = slurm.start(experiment(points=2, seconds=12))
    wait_for(lambda: started(slurm) == 2, limit=60)
    slurm.commands.fail("squeue", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    wait_for(lambda: slurm.commands.calls("squeue") >= 6, limit=60)
    status = json.loads(slurm.stx.run("status", "cmd", "--json").stdout)
    assert "Unable to contact slurm controller" in json.dumps(status)
    slurm.commands.work("squeue")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, f"{out}\n{err}"
    assert started(slurm) == 2
    assert slurm.commands.calls("scancel") == 0


@pytest.mark.parametrize("seconds", [8, pytest.param(60, marks=pytest.mark.full)])
def test_a_controller_that_is_dead_for_a_while_loses_nothing(slurm, experiment, seconds):
    process = slurm.start(experiment(points=4, seconds=seconds + 12))
    wait_for(lambda: started(slurm) >= 4, limit=60)
    time.sleep(6)  # slurmctld writes its state every 5 s
    slurm.cluster.controller("down")
    time.sleep(seconds)
    slurm.cluster.controller("up")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, f"{out}\n{err}"
    assert started(slurm) == 4


def test_a_job_that_a_person_cancels_or_requeues_by_hand_is_made_again(slurm, experiment):
    process = slurm.start(experiment(points=2, seconds=15))
    wait_for(lambda: started(slurm) == 2, limit=60)
    first, second = sorted(slurm.cluster.command("squeue", "-h", "-o", "%i").split())
    slurm.cluster.command("scancel", first)
    slurm.cluster.command("scontrol", "update", f"JobId={second}", "Requeue=1")
    slurm.cluster.command("scontrol", "requeue", second)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, f"{out}\n{err}"
    assert len(slurm.stx.digests()) == 2
    assert started(slurm) == 4


def test_a_coordinator_that_was_killed_is_followed_by_one_that_adopts_its_jobs(slurm, experiment):
    path = experiment(points=3, seconds=10)
    process = slurm.start(path)
    wait_for(lambda: started(slurm) == 3, limit=60)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    slurm.submit(path)
    assert started(slurm) == 3
    assert slurm.commands.calls("sbatch") == 3
