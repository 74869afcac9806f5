"""The contract of jobs/contract.py, and what only Ray does, on a real Ray: two nodes of this machine, n1 and n2."""

import json
import os
import signal

import pytest

from jobs import contract, outcome
from jobs.contract import Job, prepare, start, submit, until
from jobs.files import AttemptDir
from jobs.launchers.ray import NoCluster, RayLauncher
from jobs.launchers.ray.line import RayError, Where
from jobs.spec import Cause, JobState, Resources, Result
from tests.jobs.ray.conftest import prepare_as
from tests.ray_cluster import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.mark.sampled(seconds=6)
@pytest.mark.parametrize("name", [check.__name__ for check in contract.CHECKS])
def test_the_ray_launcher_keeps_the_contract(name, on_ray, folder):
    getattr(contract, name)(on_ray, folder)


@pytest.mark.sampled(seconds=6)
def test_a_job_whose_driver_died_runs_and_is_found_by_its_name(raycluster, on_ray, folder):
    first = RayLauncher("another", lambda: raycluster.where)
    spec = prepare(folder, "wait")
    handle = first.submit(spec)
    os.kill(first._line._child.pid, signal.SIGKILL)
    assert on_ray.find(spec.tag, spec.attempt_dir) == handle
    job = Job(on_ray, spec, handle)
    job.wait_alive()
    with pytest.raises(RayError, match="the driver has ended") as caught:
        first.poll([handle], {spec.tag: spec.attempt_dir})
    assert caught.value.later
    assert first.poll([handle], {spec.tag: spec.attempt_dir})[handle].state is JobState.RUNNING, "a new driver"
    first.close()
    on_ray.stop(handle, spec.attempt_dir)
    (said,) = job.wait_ended()
    assert said is not None and said.result is Result.YIELDED


@pytest.mark.sampled(seconds=6)
def test_a_job_that_no_cluster_took_is_taken_by_the_one_that_is_there_next(raycluster, folder):
    nobody = Where(f"127.0.0.1:{free_port()}", token=str(raycluster.token))
    there = [None, nobody, raycluster.where]

    def where():
        if there[0] is None:
            raise NoCluster("no Ray cluster of ours is up")
        return there[0]

    launcher, spec = RayLauncher("ours", where), prepare(folder, "report")
    for refused in (NoCluster, RayError):
        with pytest.raises(refused) as caught:
            launcher.submit(spec)
        assert caught.value.later and not caught.value.cured(), "still the same"
        there.pop(0)
        assert caught.value.cured()
    job = Job(launcher, spec, launcher.submit(spec))
    (said,) = job.wait_ended()
    assert said is not None and said.result is Result.COMPLETED
    launcher.close()


@pytest.mark.sampled(seconds=8)
def test_nodes_of_a_job_are_different_ones_and_ranks_of_a_node_together(on_ray, folder):
    job = submit(on_ray, prepare_as(folder, "report", nodes=2, ranks_per_node=2))
    seen = [said.info["environment"] for said in job.wait_ended() if said is not None]
    assert [(one["RANK"], one["LOCAL_RANK"], one["WORLD_SIZE"]) for one in seen] == [
        (str(rank), str(rank % 2), "4") for rank in range(4)
    ]
    assert seen[0]["STX_NODE"] == seen[1]["STX_NODE"] != seen[2]["STX_NODE"] == seen[3]["STX_NODE"]
    started = json.loads(job.attempt.started.read_bytes())
    assert sorted(started["nodes"].split(",")) == ["n1", "n2"]
    assert not [name for name in seen[0] if name.startswith(("RAY_", "STX_RAY_"))]


@pytest.mark.sampled(seconds=10)
def test_each_rank_sees_exactly_its_gpus_and_no_two_the_same(on_ray, folder):
    both = submit(on_ray, prepare_as(folder, "report", ranks_per_node=2, gpus_per_rank=1))
    seen = {said.info["environment"]["CUDA_VISIBLE_DEVICES"] for said in both.wait_ended() if said is not None}
    assert seen == {"0", "1"}
    one = submit(on_ray, prepare_as(folder, "wait", gpus_per_rank=2))
    one.wait_alive()
    waits = submit(on_ray, prepare_as(folder, "report", gpus_per_rank=1))
    beside = submit(on_ray, prepare(folder, "report"))
    (said,) = beside.wait_ended()
    assert said is not None and said.result is Result.COMPLETED, "CPUs are free beside GPUs that are taken"
    assert waits.observe().state is JobState.PENDING
    on_ray.stop(one.handle, one.attempt.path)
    (said,) = waits.wait_ended()
    assert said is not None and said.result is Result.COMPLETED


@pytest.mark.sampled(seconds=6)
def test_a_job_that_waits_is_taken_back_by_a_stop(on_ray, folder):
    large = start(on_ray, folder, "wait", ranks=4)
    waits = submit(on_ray, prepare_as(folder, "wait", cpus_per_rank=3))
    until(lambda: waits.observe().state is JobState.PENDING, "it waits")
    assert "CPUs, GPUs or memory" in waits.observe().detail
    on_ray.stop(waits.handle, waits.attempt.path)
    assert waits.wait_ended() == [None] and not waits.attempt.started.exists()
    on_ray.cancel(large.handle, large.attempt.path)
    large.wait_ended()


@pytest.mark.sampled(seconds=4)
def test_an_actor_that_cannot_begin_is_the_nodes_fault_in_its_words(on_ray, folder):
    spec = prepare(folder, "report")
    AttemptDir(spec.attempt_dir).scheduler_logs.write_text("no folder")
    job, seen = submit(on_ray, spec), []
    until(lambda: seen.append(job.observe()) or seen[-1].state is JobState.ENDED, "the attempt is over")
    assert seen[-1].cause is Cause.NODE and "could not begin: " in seen[-1].detail, seen[-1]
    assert "scheduler" in seen[-1].detail
    assert outcome.read(job.attempt, 0) is None and on_ray._group(job.handle) is None


@pytest.mark.sampled(seconds=3)
def test_what_can_never_fit_is_refused_with_what_there_is(on_ray):
    has = "this Ray cluster has 4 CPUs, 2 GPUs, 2.0 GB; 2 CPUs, 0 GPUs, 2.0 GB"
    assert on_ray.described() == has
    assert on_ray.refusal(Resources(nodes=2, ranks_per_node=2, mem_gb=1)) is None
    assert on_ray.refusal(Resources(ranks_per_node=3, gpus_per_rank=1)) == f"a node of this job takes 3 GPUs; {has}"
    assert on_ray.refusal(Resources(nodes=2, ranks_per_node=3, mem_gb=1)) == (
        f"2 nodes of this size are wanted, and 1 would do; {has}"
    )


@pytest.mark.sampled(seconds=3)
def test_where_nobody_answers_it_is_told_at_once_and_held_against_no_job(raycluster, folder):
    nobody = RayLauncher("nobody", lambda: Where(f"127.0.0.1:{free_port()}", token=str(raycluster.token)))
    with pytest.raises(RayError, match=r"nobody answers there: .*refused") as caught:
        nobody.submit(prepare(folder, "report"))
    assert caught.value.later


@pytest.mark.sampled(seconds=3)
def test_another_token_is_refused_and_so_is_none(raycluster, tmp_path):
    (tmp_path / "token").write_text("0" * 64)
    for name, words in (("token", "its token is another one: .*InvalidAuthToken"), ("missing", "No such file")):
        stranger = RayLauncher("stranger", lambda path=tmp_path / name: Where(raycluster.address, token=str(path)))
        with pytest.raises(RayError, match=words) as caught:
            stranger.refusal(Resources())
        assert caught.value.later
