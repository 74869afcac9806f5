"""The contract of jobs/contract.py, and what only Slurm does, on a real Slurm."""

from dataclasses import replace

import pytest

from jobs import contract, outcome
from jobs.contract import Job, prepare, start, submit, until
from jobs.files import AttemptDir
from jobs.launchers.slurm import SlurmLauncher
from jobs.launchers.slurm.commands import SlurmError
from jobs.spec import Cause, JobState, Result

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
# These wait for jobs of several seconds, or for Slurm's own grace.
LONG = {
    contract.check_a_cancel_ends_stubborn_ranks_and_what_they_started,
    contract.check_a_failed_rank_gives_its_cause_to_those_ended_for_it,
}


@pytest.mark.parametrize("name", [check.__name__ for check in contract.CHECKS])
def test_the_slurm_launcher_keeps_the_contract(name, slurm, tmp_path):
    getattr(contract, name)(slurm, tmp_path)


def test_a_job_that_the_site_starts_again_in_spite_of_us_leaves_and_is_over(slurm, devcluster, tmp_path):
    job = start(slurm, tmp_path, "wait")
    job_id = job.handle.job_id
    started = job.attempt.started.read_bytes()
    devcluster.command("scontrol", "update", f"JobId={job_id}", "Requeue=1")
    devcluster.command("scontrol", "requeue", job_id)
    until(lambda: job.observe().state is JobState.ENDED, "the attempt is over")
    until(lambda: devcluster.job(job_id)["JobState"] in ("CANCELLED", "COMPLETED"), "what was left is cancelled")
    assert job.attempt.started.read_bytes() == started


def test_a_preempted_job_saves_and_yields(slurm, devcluster, tmp_path):
    job = start(slurm, tmp_path, "wait", ranks=2)
    until(lambda: job.observe().state is JobState.RUNNING, "it runs")
    high = devcluster.sbatch("sleep 5", "-p", "high", "-N4", "--exclusive", "-o", "/dev/null")
    for said in job.wait_ended():
        assert said is not None and said.result is Result.YIELDED, str(said)
    devcluster.command("scancel", high)


def test_a_submission_that_slurm_refuses_is_told_in_its_words(slurm, tmp_path):
    spec = prepare(tmp_path, "report")
    with pytest.raises(SlurmError, match="invalid partition specified: nowhere") as caught:
        submit(slurm, replace(spec, resources=replace(spec.resources, partition="nowhere")))
    assert not caught.value.later


def test_a_job_whose_submitter_died_runs_and_is_found_by_its_name(slurm, tmp_path):
    spec = prepare(tmp_path, "wait")
    handle = slurm.submit(spec)
    found = SlurmLauncher().find(spec.tag, spec.attempt_dir)
    assert found == handle
    job = Job(slurm, spec, handle)
    job.wait_alive()
    slurm.stop(handle, spec.attempt_dir)
    job.wait_ended()


def test_a_rank_that_fails_to_see_its_gpus_blames_the_node(slurm, tmp_path):
    spec = prepare(tmp_path, "report")
    intent = AttemptDir(spec.attempt_dir).intent
    intent.write_text(intent.read_text().replace('"gpus_per_rank": 0', '"gpus_per_rank": 1'))
    job = submit(slurm, spec)  # the request asks for none: as a node whose GPU is gone
    job.wait_ended()
    said = outcome.read(job.attempt, 0)
    assert said is not None and said.cause is Cause.NODE and "was to have 1 GPUs" in said.message
