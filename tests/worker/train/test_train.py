"""Real training of a tiny SiT with DeepSpeed, one rank, in this process."""

import contextlib
import dataclasses
import json
import shutil
import time

import numpy as np
import pytest
import torch

from stx import records
from stx.errors import DataError
from stx.worker import checkpoint as checkpoints
from stx.worker import train
from stx.worker.attempt import NonFinite, Yielded
from stx.worker.loop import Loop

BATCH, STEPS, SAMPLES = 8, 40, 64
TOTAL = BATCH * STEPS
VANILLA = {"alignment": {"method": "none"}}


def test_a_run_learns_and_publishes_raw_and_ema_weights_at_every_wanted_count(runs, made):
    attempt = runs.attempt(wants=(160, TOTAL))
    train.run(attempt)
    assert attempt.stage.parts("train") == [160, TOTAL]
    lines = made(attempt).metrics
    assert [line["images"] for line in lines] == list(range(BATCH, TOTAL + 1, BATCH))
    assert np.mean([line["diffusion"] for line in lines[-8:]]) < np.mean([line["diffusion"] for line in lines[:8]])
    assert {"loss", "grad_norm", "images_per_s", "loader_wait_s", "time"} <= lines[0].keys()
    assert any("alignment.velocity_head" in line for line in lines)
    weights = made(attempt).weights
    raw = {name.removeprefix("raw.") for name in weights if name.startswith("raw.")}
    ema = {name.removeprefix("ema.") for name in weights if name.startswith("ema.")}
    assert raw == ema
    assert {name.split(".")[0] for name in raw} == {"model", "alignment"}
    assert "model.blocks.0.attn.qkv.weight" in raw
    assert any(not torch.equal(weights[f"raw.{name}"], weights[f"ema.{name}"]) for name in raw)
    assert made(attempt).lineage() == 1
    assert (attempt.notes["from"], attempt.notes["to"]) == (0, TOTAL)


@pytest.mark.parametrize("science", [{}, VANILLA], ids=["velocity_head", "none"])
def test_a_run_that_yields_continues_bit_for_bit(new_runs, stop, science, made):
    whole = new_runs("whole").attempt(**science)
    train.run(whole)
    runs = new_runs("interrupted")
    first = runs.attempt(**science)
    stop.after(17)
    with pytest.raises(Yielded):
        train.run(first)
    assert (first.notes["saved"], first.notes["images"]) == (True, 18 * BATCH)
    stop.after(10**9)
    second = runs.attempt(**science)
    train.run(second)
    assert made(second).digest == made(whole).digest
    assert made(second).lineage() == 2
    assert made(first).losses | made(second).losses == made(whole).losses


@pytest.mark.parametrize("cached", [False, True], ids=["online", "cached"])
def test_phase_2_trains_against_the_frozen_teacher_and_resumes_bit_for_bit(new_runs, stop, cached, made):
    digests = []
    for name, stop_after in (("whole", 10**9), ("interrupted", 21)):
        runs = new_runs(name)
        inputs = {"alignment.teacher": runs.teacher()}
        if cached:
            inputs["alignment.features"] = runs.features(inputs["alignment.teacher"])
        stop.after(stop_after)
        first = runs.attempt(inputs=inputs, alignment=runs.guided)
        with contextlib.suppress(Yielded):
            train.run(first)
        stop.after(10**9)
        last = runs.attempt(inputs=inputs, alignment=runs.guided)
        train.run(last)
        digests.append(made(last).digest)
        aligned = [line for line in made(first).metrics if "alignment.guided_teacher" in line]
        assert aligned
        assert all(line["target_rms"] > 0 and abs(line["guidance_cosine"]) <= 1 for line in aligned)
        assert not any("teacher" in name for name in made(last).weights)
    assert digests[0] == digests[1]


def test_a_cache_made_for_another_block_is_refused(runs):
    teacher = runs.teacher()
    inputs = {"alignment.teacher": teacher, "alignment.features": runs.features(teacher)}
    with pytest.raises(DataError, match="teacher block"):
        train.run(runs.attempt(inputs=inputs, alignment=runs.guided | {"teacher_block": 1}))


def test_micro_batches_change_nothing_but_the_rounding(new_runs, made):
    whole, cut = new_runs("whole").attempt(), new_runs("cut").attempt(micro=2)
    for attempt in (whole, cut):
        train.run(attempt)
    first = range(BATCH, 21 * BATCH, BATCH)
    assert [made(cut).losses[n] for n in first] == pytest.approx([made(whole).losses[n] for n in first], rel=1e-6)


def test_raising_the_steps_resumes_and_recomputes_nothing(new_runs, made):
    whole = new_runs("whole").attempt()
    train.run(whole)
    runs = new_runs("raised")
    short = runs.attempt(wants=(160,))
    train.run(short)
    longer = runs.attempt()
    train.run(longer)
    assert next(line["images"] for line in made(longer).metrics) == 160 + BATCH
    assert longer.notes["recomputed_images"] == 0
    assert made(longer).digest == made(whole).digest
    nothing_left = runs.attempt()
    train.run(nothing_left)
    assert not nothing_left.folder.metrics.exists()


def test_a_milestone_that_another_experiment_adds_is_met_when_it_comes_by(runs):
    attempt = runs.attempt(wants=(TOTAL,), every_s=0)
    records.write(attempt.stage.mark("another"), {"images": [200]})
    train.run(attempt)
    assert attempt.stage.parts("train") == [200, TOTAL]


def test_a_milestone_that_was_passed_and_not_kept_is_refused_with_those_there_are(runs):
    train.run(runs.attempt(wants=(80, TOTAL)))
    with pytest.raises(DataError, match=r"milestone 160 (.|\n)*80, 320"):
        train.run(runs.attempt(wants=(160, TOTAL)))


def test_a_count_that_is_wanted_after_the_last_step_is_left_to_the_next_attempt(runs, monkeypatch):
    attempt, train_to_the_end = runs.attempt(wants=(160,)), Loop.run

    def run(loop):
        train_to_the_end(loop)
        records.write(attempt.stage.mark("another"), {"images": [TOTAL]})

    monkeypatch.setattr(Loop, "run", run)
    train.run(attempt)
    assert attempt.stage.parts("train") == [160]


def test_a_kill_between_checkpoint_and_milestone_loses_no_milestone(runs, made):
    train.run(runs.attempt(wants=(160, TOTAL)))
    attempt = runs.attempt(wants=(160, TOTAL))
    before = made(attempt, 160).digest, made(attempt).digest
    shutil.rmtree(attempt.stage.path / "milestones")
    train.run(attempt)
    assert (made(attempt, 160).digest, made(attempt).digest) == before
    assert not attempt.folder.metrics.exists()


def test_a_damaged_checkpoint_costs_recomputing_and_changes_nothing(runs, caplog, made):
    train.run(runs.attempt(wants=(160, TOTAL)))
    attempt = runs.attempt(wants=(160, TOTAL))
    before = made(attempt).digest
    shutil.rmtree(attempt.stage.part("train", TOTAL).path)
    newest = checkpoints.found(attempt.stage.checkpoints)[-1] / "rank-0.safetensors"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    train.run(attempt)
    assert "is damaged and not used" in caplog.text
    assert made(attempt).digest == before
    assert made(attempt).metrics[0]["images"] == 160 + BATCH


def test_a_batch_with_bad_gradients_is_seen_and_changes_no_weight(runs, caplog, made):
    latents = runs.as_source(runs.publish(runs.workshop, bad=[5]))
    attempt = runs.attempt(latents=latents)
    train.run(attempt)
    info = made(attempt).info
    assert info["skipped"] == TOTAL // SAMPLES
    assert info["updates"] == STEPS - info["skipped"]
    assert all(torch.isfinite(value).all() for value in made(attempt).weights.values())
    assert "skipped step images=" in caplog.text
    assert sum(line["loss"] is None for line in made(attempt).metrics) == info["skipped"]


def test_five_bad_batches_in_a_row_end_the_run(runs):
    latents = runs.as_source(runs.publish(runs.workshop, bad=range(SAMPLES)))
    with pytest.raises(NonFinite, match="5 steps in a row were not finite: images 0 to 39"):
        train.run(runs.attempt(latents=latents))


def test_a_save_that_does_not_fit_the_time_left_is_not_begun(runs, stop):
    """Who is asked to stop is ended after stop_lead_s; the milestone at 80 was saved without a hurry."""
    attempt = dataclasses.replace(runs.attempt(wants=(80, TOTAL)), stop_lead_s=1e-6)
    stop.after(14)
    with pytest.raises(Yielded):
        train.run(attempt)
    assert attempt.notes["saved"] is False
    assert attempt.notes["unsaved_images"] == 5 * BATCH
    assert [path.name for path in checkpoints.found(attempt.stage.checkpoints)] == ["80-001"]
    stop.after(10**9)
    again = runs.attempt(wants=(80, TOTAL))
    train.run(again)
    assert (again.notes["from"], again.notes["recomputed_images"]) == (80, 5 * BATCH)


def test_nothing_is_computed_that_cannot_be_saved(runs, monkeypatch):
    """Past the last moment for a save a milestone is not begun either, and the rest of the time is not used up."""
    attempt = runs.attempt(wants=(80, TOTAL))
    monkeypatch.setenv("STX_DEADLINE", "0")
    with pytest.raises(Yielded):
        train.run(attempt)
    assert (attempt.notes["saved"], attempt.notes["images"], attempt.notes["unsaved_images"]) == (False, 80, 80)
    assert checkpoints.found(attempt.stage.checkpoints) == []


def test_what_a_save_took_while_the_store_stalled_keeps_no_later_attempt_from_saving(runs, monkeypatch, stop):
    attempt = runs.attempt(wants=(TOTAL,))
    stop.after(4)
    with pytest.raises(Yielded):
        train.run(attempt)
    stop.after(10**9)
    (saved,) = checkpoints.found(attempt.stage.checkpoints)
    manifest = json.loads((saved / "manifest.json").read_text())
    (saved / "manifest.json").write_text(json.dumps(manifest | {"seconds": 1e6}))
    again = runs.attempt(wants=(TOTAL,))
    monkeypatch.setenv("STX_DEADLINE", str(time.monotonic() + again.time_s - 1))
    train.run(again)
    assert again.notes["to"] == TOTAL


@pytest.mark.parametrize(("max_stall", "saves"), [(1.0, STEPS), (1e-9, 2)])
def test_saves_that_are_due_by_time_take_a_bounded_share_of_it(runs, caplog, max_stall, saves):
    """Every step is a save where saving may take all the time; else the first, and then only what is wanted."""
    caplog.set_level("INFO")
    train.run(runs.attempt(every_s=0, max_stall=max_stall))
    assert sum("saved checkpoint" in line for line in caplog.messages) == saves
    assert any("max_stall" in line for line in caplog.messages) == (saves == 2)
