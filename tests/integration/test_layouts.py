"""The cluster file's list of layouts, on real training: what is taken here, and another number of ranks halfway."""

import json
import signal
import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

RUN = """
name: elastic
stages:
  images: {kind: images, source: mnist5k, resolution: 32, held_out: 500}
  vae: {kind: autoencoder, images: images, steps: 6, batch: 8}
  latents: {kind: latents, images: images, autoencoder: vae}
  run: {kind: train, latents: latents, model: SiT-Mu/2, global_batch: 16, precision: fp32, log_every: 5, steps: %d}
"""
LISTED = """
stages:
  train:
    layouts:
      - {ranks_per_node: 64, micro_batch: 1}   # more cores than jobs have here
      - {ranks_per_node: 2, zero_stage: 2}
"""


def wait_for(condition, *, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_run_takes_the_layout_that_fits_and_goes_on_in_another_one(with_latents):
    stx = with_latents
    file, here, alone = (stx.folder / name for name in ("e.yaml", "here.yaml", "alone.yaml"))
    file.write_text(RUN % 3000)
    here.write_text(LISTED)
    alone.write_text("stages: {train: {ranks: 1, zero_stage: 0}}\n")
    refused = stx.run("plan", str(file), "--cluster", str(here), expect=2)
    assert "here.yaml:5: stages.train.layouts[0]\n" in refused.stderr, "64 ranks do not divide 16 images"
    here.write_text(LISTED.replace("ranks_per_node: 64", "ranks_per_node: 16"))
    planned = stx.run("plan", str(file), "--cluster", str(here)).stdout
    assert "layout 2 of cluster here is used here; 1: 16 ranks x 1 cores = 16, but this machine has 2" in planned

    process = stx.start("submit", str(file), "--cluster", str(here))
    wait_for(lambda: any(stx.store.glob("stages/train-*/attempts/001/metrics.jsonl")))
    (live,) = json.loads(stx.run("status", "run", "--json").stdout)["experiments"][0]["stages"]
    assert (live["layout"]["ranks"], live["layout"]["zero_stage"]) == (2, 2)
    process.send_signal(signal.SIGINT)  # 2 ranks save and leave
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, f"{out}\n{err}"

    # Now there is room for one rank only, and for fewer steps.
    (stage,) = stx.store.glob("stages/train-*")
    (saved,) = [int(path.name.split("-")[0]) for path in stage.glob("checkpoints/[0-9]*")]
    file.write_text(RUN % (saved // 16 + 20))
    stx.run("submit", str(file), "--update", "--cluster", str(alone))
    told = [json.loads(path.read_text()) for path in sorted(stage.glob("attempts/*/attempt.json"))]
    assert [(one["layout"]["ranks"], one["layout"]["zero_stage"]) for one in told] == [(2, 2), (1, 0)]
    last = json.loads((stage / "attempts/002/outcome-0.json").read_text())["info"]
    assert (last["from"], last["to"], last["recomputed_images"]) == (saved, saved + 320, 0)
    shown = stx.run("show", "run").stdout
    assert "ran as: 2 ranks, 1 thread, ZeRO 2, micro-batch 8 (attempt 1); 1 rank, 1 thread, ZeRO 0" in shown
    (page,) = stx.store.glob("experiments/elastic/report/*.md")
    assert "2 ranks, 1 thread, ZeRO 2, micro-batch 8 (1 attempt)" in page.read_text()
