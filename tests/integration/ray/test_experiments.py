"""Whole experiments on a real Ray: the payloads of a local run, on one node and on two, whoever is killed meanwhile."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from jobs.files import AttemptDir
from tests.integration.conftest import MICRO, Stx
from tests.integration.slurm.test_training import LONG
from tests.jobs.ray.conftest import actor_of, jobs_of
from tests.slurm_cluster import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def kill_actor(stx: Stx, rank: int) -> None:
    """The actor of a rank, once training has begun; both ranks then save within seconds."""
    wait_for(lambda: bool(list(stx.store.glob("stages/train-*/attempts/001/metrics.jsonl"))), limit=240)
    (attempt,) = stx.store.glob("stages/train-*/attempts/001")
    os.kill(actor_of(AttemptDir(attempt), rank), signal.SIGKILL)
    wait_for(lambda: len(list(attempt.glob("outcome-*.json"))) == 2, limit=240)


@pytest.mark.sampled(seconds=90)
def test_an_experiment_on_ray_has_the_payloads_of_a_local_one(ray, micro):
    ray.submit(Path(MICRO))
    assert ray.stx.digests() == micro.digests()
    assert set(ray.stx.attempts().values()) == {1}


@pytest.mark.sampled(seconds=120)
@pytest.mark.parametrize("killed", [None, 0, 1], ids=["nobody", "actor of rank 0", "actor of rank 1"])
def test_two_nodes_train_the_weights_of_two_local_ranks_whoever_is_killed(killed, ray_with_latents, new_stx):
    ray, local = ray_with_latents, new_stx("local")
    shutil.copytree(ray.stx.store, local.store)
    experiment = ray.stx.folder / "two.yaml"
    experiment.write_text(LONG.replace("STEPS", "300"))
    ray.file.write_text(ray.file.read_text() + "  train: {layouts: [{nodes: 2}], mem_gb: 0.2, time: 20m}\n")
    process = ray.start(experiment)
    if killed is not None:
        kill_actor(ray.stx, killed)
    out, err = process.communicate()
    assert process.returncode == 0, f"{out}\n{err}"
    here = local.folder / "local.yaml"
    here.write_text("stages:\n  default: {mem_gb: 1}\n  train: {layouts: [{ranks_per_node: 2}], mem_gb: 1}\n")
    local.run("submit", str(experiment), "--cluster", str(here))
    assert ray.stx.digests() == local.digests()
    assert any(name.startswith("stages/train-") for name in local.digests())
    (count,) = [count for name, count in ray.stx.attempts().items() if name.startswith("train-")]
    assert count == (1 if killed is None else 2)


@pytest.mark.sampled(seconds=90)
def test_a_coordinator_that_was_killed_is_followed_by_one_that_adopts_its_jobs(ray_with_latents, micro):
    ray = ray_with_latents
    first = ray.start(Path(MICRO))
    wait_for(lambda: bool(jobs_of(ray.launcher)), limit=240)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    ray.submit(Path(MICRO))
    assert ray.stx.digests() == micro.digests()
    assert set(ray.stx.attempts().values()) == {1}, "nothing ran twice"


@pytest.mark.sampled(seconds=20)
def test_a_stage_that_fits_no_node_is_refused_with_what_the_cluster_has(ray):
    ray.file.write_text(ray.file.read_text() + "  train: {ranks: 4, gpus_per_rank: 1, mem_gb: 0.2}\n")
    refused = ray.stx.run("plan", str(MICRO), "--cluster", str(ray.file), expect=2)
    assert (
        "a node of this job takes 4 GPUs; this Ray cluster has 4 CPUs, 2 GPUs, 2.0 GB; 2 CPUs, 0 GPUs" in refused.stderr
    )


@pytest.mark.sampled(seconds=20)
def test_the_doctor_looks_at_the_cluster(ray):
    found = ray.stx.run("doctor", "--cluster", str(ray.file), expect=None).stdout
    assert "this Ray cluster has 4 CPUs, 2 GPUs" in found
