"""Preemption as sites differ in it: with and without a signal of the job's own, a grace, accounting, requeueing."""

import pytest

from jobs import outcome
from jobs.contract import start, until
from jobs.launchers.slurm import SlurmLauncher
from jobs.spec import Cause, JobState, Result
from tests.slurm_cluster import cluster

pytestmark = pytest.mark.timeout(240)
SAVES = {
    "a signal of its own": (),
    "TERM only": ("--no-user-signal",),
    "cancelled, not requeued": ("--preempt-mode", "CANCEL"),
    "with accounting": ("--accounting",),
}


def preempted(site, launcher, folder):
    """A job of two ranks on a site, after the high partition has taken its node."""
    job = start(launcher, folder, "wait", ranks=2)
    until(lambda: job.observe().state is JobState.RUNNING, "it runs")
    site.sbatch("sleep 3", "-p", "high", "-N4", "--exclusive", "-o", "/dev/null")
    until(lambda: job.observe().state is JobState.ENDED, "it has ended")
    return job


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.parametrize("options", SAVES.values(), ids=SAVES)
def test_where_there_is_a_grace_a_preempted_job_saves_and_yields(options, outside, tmp_path):
    with cluster(*options) as site:
        outside.setenv("SLURM_CONF", str(site.conf))
        job = preempted(site, SlurmLauncher(), tmp_path)
        said = [outcome.read(job.attempt, rank) for rank in job.ranks]
        assert all(one is not None and one.result is Result.YIELDED for one in said), str(said)


@pytest.mark.slow
@pytest.mark.sampled(seconds=10)
def test_where_there_is_no_grace_it_is_lost_to_preemption_and_to_nothing_else(outside, tmp_path):
    with cluster("--grace-s", "0", "--no-user-signal") as site:
        outside.setenv("SLURM_CONF", str(site.conf))
        job = preempted(site, SlurmLauncher(), tmp_path)
        if outcome.read(job.attempt, 0) is None:
            assert job.observe().cause is Cause.PREEMPT
        else:  # Slurm sends TERM before KILL even then, and this rank needs no time to save
            assert outcome.read(job.attempt, 0).result is Result.YIELDED
