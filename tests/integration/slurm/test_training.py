"""Training on real nodes: over two of them, and preempted at random, it ends in the payloads of a local run."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from stx.paths import StageDir
from stx.report import history
from tests.integration.conftest import MICRO, QUICKSTART, SHORTENED, Stx
from tests.integration.slurm.conftest import OnSlurm
from tests.slurm_cluster import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.sampled(seconds=120)]

TRAIN = """\
name: two
stages:
  images: {kind: images, source: mnist5k, resolution: 32, held_out: 500}
  vae: {kind: autoencoder, images: images, steps: 6, batch: 8}
  latents: {kind: latents, images: images, autoencoder: vae}
  vanilla:
    {kind: train, latents: latents, model: SiT-Mu/2, global_batch: 16, lr: 1.0e-3, ema_decay: 0.9, precision: fp32,
     steps: 40, milestones: [20, 40]}
"""
# Runs of half a minute and longer, every step of which is logged.
LONG = TRAIN.replace("steps: 40, milestones: [20, 40]}", "steps: STEPS, log_every: 1}")
SWEEP = LONG.replace("name: two", "name: points").replace(
    "STEPS, log_every: 1}", "1200, log_every: 1, sweep: {seed: [0, 1]}}"
)
BATCH = 16
AT_MOST = 30  # preemptions
TWO_NODES = "  train: {layouts: [{nodes: 2}], mem_gb: 1, time: 20m}\n"


def two_local_ranks(local: Stx, slurm: OnSlurm, experiment: Path) -> dict[str, str]:
    """The digests of the same experiment on this machine."""
    here = local.folder / "local.yaml"
    here.write_text("stages:\n  default: {mem_gb: 1}\n  train: {layouts: [{ranks_per_node: 2}], mem_gb: 1}\n")
    local.run("submit", str(experiment), "--cluster", str(here))
    return local.digests()


@pytest.fixture
def two(slurm_with_latents: OnSlurm, new_stx: Callable[[str], Stx]) -> tuple[OnSlurm, Stx]:
    """Slurm where runs get two nodes, and this machine."""
    slurm, local = slurm_with_latents, new_stx("local")
    shutil.copytree(slurm.stx.store, local.store)
    slurm.file.write_text(slurm.file.read_text() + TWO_NODES)
    return slurm, local


def test_two_nodes_train_the_weights_of_two_local_ranks_after_two_steps_of_everything(two):
    slurm, local = two
    experiment = slurm.stx.folder / "two.yaml"
    experiment.write_text(TRAIN)
    done = slurm.submit(experiment, "--smoke")
    assert "smoke: all done" in done.stderr
    expected = two_local_ranks(local, slurm, experiment)
    assert any(name.startswith("stages/train-") for name in expected)
    assert expected.items() <= slurm.stx.digests().items()


@pytest.mark.timeout(600)
def test_a_killed_rank_of_two_and_all_ranks_killed_cost_an_attempt_each_and_no_bit(two):
    slurm, local = two
    experiment = slurm.stx.folder / "two.yaml"
    experiment.write_text(LONG.replace("STEPS", "600"))
    process = slurm.start(experiment)

    for attempt, ranks in ((1, 1), (2, 2)):
        log = f"stages/train-*/attempts/{attempt:03d}/metrics.jsonl"
        wait_for(lambda log=log: list(slurm.stx.store.glob(log)), limit=200, seen=slurm.jobs)
        time.sleep(4)  # some steps, and a save
        for pid in slurm.processes("stx.worker")[:ranks]:
            os.kill(pid, signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, f"{out}\n{err}"
    (run,) = slurm.stx.store.glob("stages/train-*")
    assert [(one.result, one.cause) for one in history.attempts(StageDir(run))] == [("FAILED", "LOST")] * 2 + [
        ("COMPLETED", "")
    ]
    check_that_every_image_was_trained_once(run)
    assert two_local_ranks(local, slurm, experiment) == slurm.stx.digests()


@pytest.mark.full
def test_a_time_limit_shorter_than_a_checkpoint_interval_is_left_with_a_save(slurm_with_latents):
    slurm = slurm_with_latents
    text = slurm.file.read_text().replace("every_s: 2", "every_s: 3600")
    slurm.file.write_text(text + "  train: {mem_gb: 1, time: 1m}\n")
    experiment = slurm.stx.folder / "long.yaml"
    experiment.write_text(LONG.replace("STEPS", "6000"))
    slurm.submit(experiment, limit=800)
    (run,) = slurm.stx.store.glob("stages/train-*")
    *left, last = history.attempts(StageDir(run))
    assert left and {one.result for one in left} == {"YIELDED"} and last.result == "COMPLETED"
    check_that_every_image_was_trained_once(run)


def preempt(slurm, process, *, seed):
    """While stx runs, the high partition takes one to four nodes away now and then, AT_MOST times; how often. On a busy
    machine a worker takes longer to start than it is left alone: it would never end.
    """
    chance, times = random.Random(seed), 0
    while process.poll() is None and times < AT_MOST:
        nodes = chance.randint(1, 4)
        seconds = chance.uniform(1, 3)
        slurm.cluster.sbatch(f"sleep {seconds:.1f}", "-p", "high", f"-N{nodes}", "--exclusive", "-o", "/dev/null")
        times += 1
        try:
            process.wait(timeout=chance.uniform(8, 20))
        except subprocess.TimeoutExpired:
            continue
    return times


def preempted_at_random(slurm: OnSlurm, experiment: Path, *sets: str) -> str:
    """Submit it, and take nodes away until it has ended; what happened."""
    seed = int(os.environ.get("STX_CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
    process = slurm.start(experiment, *sets)
    times = preempt(slurm, process, seed=seed)
    out, err = process.communicate()
    assert process.returncode == 0, f"seed {seed}\n{out}\n{err}"
    attempts = sum(slurm.stx.attempts().values()) - len(slurm.stx.attempts())
    return f"seed {seed}: {times} preemptions, {attempts} attempts more than stages"


def check_that_every_image_was_trained_once(run: Path, *, batch: int = BATCH) -> None:
    """By the lines of its lineage, one a step: none is missing. What an attempt did beyond the checkpoint that the next
    one went on from is not in it.
    """
    trained = [point.images for point in history.curve(StageDir(run))]
    assert trained == list(range(batch, trained[-1] + 1, batch)), run.name


def test_preempted_at_random_it_ends_in_the_payloads_of_an_untouched_local_run(
    slurm_with_latents, micro, record_property
):
    figures = preempted_at_random(slurm_with_latents, Path(MICRO))
    record_property("figures", figures)
    assert slurm_with_latents.stx.digests() == micro.digests(), figures


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_the_quickstart_with_its_sweep_preempted_at_random_trains_every_image_once(slurm, new_stx, record_property):
    words = [*SHORTENED[1:], "--set", "defaults.train.log_every=1"]
    local = new_stx("local")
    local.run("submit", str(QUICKSTART), *words, limit=1200)
    figures = preempted_at_random(slurm, QUICKSTART, *words)
    record_property("figures", figures)
    assert slurm.stx.digests() == local.digests(), figures
    runs = list(slurm.stx.store.glob("stages/train-*"))
    assert len(runs) == 7, "two without a teacher, phase 1, a sweep of four"
    for run in runs:
        check_that_every_image_was_trained_once(run, batch=64)


@pytest.mark.timeout(600)
def test_a_cancelled_point_and_a_cancelled_experiment_save_and_another_submit_resumes_them(slurm_with_latents):
    slurm = slurm_with_latents
    path = slurm.stx.folder / "points.yaml"
    path.write_text(SWEEP)
    process = slurm.start(path)
    seen: dict[str, Any] = {}

    def reach(condition: Callable[[Mapping[str, Any]], bool], *points: str) -> None:
        def there() -> bool:
            text = slurm.stx.run("status", "points", "--json", expect=None).stdout
            lines = json.loads(text)["experiments"][0]["stages"] if text.startswith("{") else []
            seen.update({line["name"]: line for line in lines})
            return bool(seen) and all(condition(seen[point]) for point in points)

        wait_for(there, limit=120, every=1.0, seen=lambda: seen)

    one, other = "vanilla:seed=0", "vanilla:seed=1"
    reach(lambda line: line["state"] == "RUNNING" and (line["images"] or 0) > BATCH, one, other)
    slurm.stx.run("cancel", f"points/{other}")
    reach(lambda line: line["state"] == "CANCELLED", other)
    assert seen[other]["failed"] == {} and seen[other]["images"] > BATCH, "it left by itself, and saved"
    assert seen[one]["state"] == "RUNNING"
    slurm.stx.run("cancel", "points")
    out, err = process.communicate(timeout=100)
    assert process.returncode == 3, f"{out}\n{err}"
    reach(lambda line: line["state"] == "CANCELLED" and line["failed"] == {} and line["images"] > BATCH, one, other)
    assert not slurm.jobs()
    again = slurm.submit(path)
    assert f"what was cancelled runs again: {one}, {other}" in again.stderr
    for run in slurm.stx.store.glob("stages/train-*"):
        check_that_every_image_was_trained_once(run)
        assert len(history.attempts(StageDir(run))) == 2
