"""SIGKILL of everything that holds a job on a real Ray: nobody is left behind, and what can save does."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from jobs.contract import Job, prepare, start, until
from jobs.launchers.ray import RayLauncher
from jobs.launchers.ray.child import GRACE_S
from jobs.launchers.ray.line import RayError
from jobs.spec import JobState, Result
from tests import ray_cluster
from tests.jobs.ray.conftest import actor_of, jobs_of, prepare_as, rewritten, supervisor_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def pids(job: Job) -> list[int]:
    """Of its ranks."""
    return [int(job.attempt.alive(rank).read_text()) for rank in job.ranks]


@pytest.mark.sampled(seconds=8)
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_actor_takes_its_sibling_along_and_both_save(victim, on_ray, folder):
    job = start(on_ray, folder, "wait", ranks=2)
    began = time.monotonic()
    os.kill(actor_of(job.attempt, victim), signal.SIGKILL)
    until(lambda: all(job.attempt.outcome(rank).exists() for rank in (0, 1)), "both have said how they ended")
    assert time.monotonic() - began < 10.0
    for said in job.wait_ended():
        assert said is not None and said.result is Result.YIELDED, str(said)


SLOW = """
import sys, time
from jobs import runtime
runtime.install()
while not runtime.stop_requested():
    time.sleep(0.01)
time.sleep(float(sys.argv[1]))
runtime.finish(runtime.attempt_dir(), runtime.rank(), runtime.Result.YIELDED)
sys.exit(runtime.EXIT_YIELDED)
"""


@pytest.mark.sampled(seconds=40)
def test_the_siblings_of_a_killed_actor_have_the_time_of_a_stop_to_save(on_ray, folder):
    """Which is longer than what a sibling has of a rank that failed."""
    save_s = GRACE_S + 2.0
    spec = prepare(folder, "wait", ranks=3)
    spec = rewritten(spec, argv=(sys.executable, "-P", "-c", SLOW, str(save_s)))
    job = Job(on_ray, spec, on_ray.submit(spec))
    job.wait_alive()
    began = time.monotonic()
    os.kill(actor_of(job.attempt, 1), signal.SIGKILL)
    for said in job.wait_ended():
        assert said is not None and said.result is Result.YIELDED, str(said)
    assert time.monotonic() - began > save_s


@pytest.mark.sampled(seconds=8)
def test_a_killed_actor_whose_ranks_do_not_heed_it_leaves_none_of_them(on_ray, folder):
    spec = prepare(folder, "stubborn", stop_lead_s=2.0)
    job = Job(on_ray, spec, on_ray.submit(spec))
    job.wait_alive()
    os.kill(actor_of(job.attempt, 0), signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pids(job)[0]}/cwd").exists(), "the rank is gone")
    assert job.observe().state is JobState.RUNNING, "nobody has said that it is over"
    on_ray._clock = lambda: time.monotonic() + 60.0
    assert job.wait_ended() == [None]


@pytest.mark.sampled(seconds=6)
def test_a_killed_supervisor_leaves_no_rank(on_ray, folder):
    job = start(on_ray, folder, "wait", ranks=2)
    os.kill(supervisor_of(job.attempt, 1), signal.SIGKILL)
    outcomes = job.wait_ended()
    assert outcomes[1] is None
    assert outcomes[0] is not None and outcomes[0].result is Result.YIELDED


@pytest.mark.sampled(seconds=6)
def test_a_killed_rank_ends_its_job(on_ray, folder):
    job = start(on_ray, folder, "wait", ranks=2)
    os.kill(pids(job)[0], signal.SIGKILL)
    assert job.wait_ended()[0] is None


@pytest.mark.sampled(seconds=40)
def test_a_node_that_dies_takes_its_jobs_along_and_the_others_run_on(folder):
    with ray_cluster.cluster() as made:
        made.start("n1", cpus=1)
        lost = made.start("n2", cpus=2)
        launcher = RayLauncher(made.address, lambda: made.where)
        there = Job(launcher, *submitted(launcher, prepare_as(folder, "wait", cpus_per_rank=2)))
        here = Job(launcher, *submitted(launcher, prepare(folder, "wait")))
        for job in (there, here):
            job.wait_alive()
        assert json.loads(there.attempt.started.read_bytes())["nodes"] == "n2"
        lost.kill()
        (said,) = there.wait_ended()
        assert said is not None and said.result is Result.YIELDED, "its supervisor saw that the actor is gone"
        assert here.observe().state is JobState.RUNNING
        launcher.cancel(here.handle, here.attempt.path)
        here.wait_ended()
        launcher.close()


@pytest.mark.sampled(seconds=40)
def test_jobs_of_a_cluster_whose_head_died_save_and_are_judged_on_the_next_one(folder):
    with ray_cluster.cluster() as first, ray_cluster.cluster() as second:
        first.start("n1", cpus=2)
        now = [first]
        clock = [0.0]
        launcher = RayLauncher("ours", lambda: now[0].where, clock=lambda: time.monotonic() + clock[0])
        job = Job(launcher, *submitted(launcher, prepare(folder, "wait")))
        job.wait_alive()
        first.nodes["n1"].kill()
        until(job.attempt.outcome(0).exists, "it has saved")
        with pytest.raises(RuntimeError, match="Ray at"):
            job.observe()
        second.start("n1", cpus=2)
        now[0] = second
        assert job.observe().state is JobState.ENDED, "it has said so"
        job.attempt.outcome(0).unlink()
        assert job.observe().state is JobState.UNKNOWN, "nobody knows yet"
        clock[0] = 75.0 + 90.0 + 15.0 + 1.0
        assert job.observe().state is JobState.ENDED
        launcher.close()


@pytest.mark.sampled(seconds=35)
def test_after_a_new_head_came_at_the_same_address_jobs_are_judged_and_begin_there(folder):
    """The old driver would go on to get answers, but what it asks for would never begin."""
    with ray_cluster.cluster() as made:
        made.start("n1", cpus=1)
        launcher = RayLauncher(made.address, lambda: made.where)
        job = Job(launcher, *submitted(launcher, prepare(folder, "wait")))
        job.wait_alive()
        made.down()
        until(job.attempt.outcome(0).exists, "it has saved")
        made.nodes.clear()
        made.start("n2", cpus=1)
        with pytest.raises(RayError):
            job.observe()
        assert job.observe().state is JobState.ENDED
        another = Job(launcher, *submitted(launcher, prepare(folder, "report")))
        (said,) = another.wait_ended()
        assert said is not None and said.result is Result.COMPLETED
        launcher.close()


@pytest.mark.sampled(seconds=8)
def test_a_job_whose_outcomes_were_enough_leaves_no_place_taken(on_ray, folder):
    job = start(on_ray, folder, "wait")
    job.observe()
    os.kill(actor_of(job.attempt, 0), signal.SIGKILL)
    until(job.attempt.outcome(0).exists, "it has saved")
    assert jobs_of(on_ray), "nobody has removed it, and nobody asks about it any more"
    until(lambda: on_ray.poll((), {}) == {} and not jobs_of(on_ray), "its place is free")


def submitted(launcher, spec):
    return spec, launcher.submit(spec)
