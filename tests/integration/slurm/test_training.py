"""Training on real nodes: over two of them, and preempted at random, it ends in the payloads of a local run."""

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.conftest import MICRO

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


def test_two_nodes_train_the_weights_of_two_local_ranks(slurm_with_latents, new_stx):
    slurm, local = slurm_with_latents, new_stx("local")
    shutil.copytree(slurm.stx.store, local.store)
    experiment = slurm.stx.folder / "two.yaml"
    experiment.write_text(TRAIN)
    slurm.file.write_text(slurm.file.read_text() + "  train: {layouts: [{nodes: 2}], mem_gb: 1, time: 20m}\n")
    slurm.submit(experiment)
    here = local.folder / "local.yaml"
    here.write_text("stages:\n  default: {mem_gb: 1}\n  train: {layouts: [{ranks_per_node: 2}], mem_gb: 1}\n")
    local.run("submit", str(experiment), "--cluster", str(here))
    assert slurm.stx.digests() == local.digests()
    assert any(name.startswith("stages/train-") for name in local.digests())


def preempt(slurm, process, *, seed):
    """Until stx has ended, the high partition takes one to four nodes away now and then; how often."""
    chance, times = random.Random(seed), 0
    while process.poll() is None:
        nodes = chance.randint(1, 4)
        seconds = chance.uniform(1, 3)
        slurm.cluster.sbatch(f"sleep {seconds:.1f}", "-p", "high", f"-N{nodes}", "--exclusive", "-o", "/dev/null")
        times += 1
        try:
            process.wait(timeout=chance.uniform(8, 20))
        except subprocess.TimeoutExpired:
            continue
    return times


def test_preempted_at_random_it_ends_in_the_payloads_of_an_untouched_local_run(
    slurm_with_latents, micro, record_property
):
    slurm = slurm_with_latents
    seed = int(os.environ.get("STX_CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
    process = slurm.start(Path(MICRO))
    times = preempt(slurm, process, seed=seed)
    out, err = process.communicate()
    assert process.returncode == 0, f"seed {seed}\n{out}\n{err}"
    assert slurm.stx.digests() == micro.digests(), f"seed {seed}"
    attempts = sum(slurm.stx.attempts().values()) - sum(1 for _ in slurm.stx.attempts())
    record_property("figures", f"seed {seed}: {times} preemptions, {attempts} attempts more than stages")
