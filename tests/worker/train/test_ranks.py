"""Training on two ranks, as real processes: signals, kills, and every ZeRO stage with every precision."""

import itertools
import signal

import pytest
import torch

from jobs import outcome
from jobs.spec import Cause, Result
from stx.worker import checkpoint as checkpoints
from stx.worker import train
from stx.worker.zero.partition import MASTER, MOMENTS

BATCH, STEPS, SAMPLES = 8, 40, 64
TOTAL = BATCH * STEPS
SECTIONS = (MASTER, *MOMENTS, "ema", "ema_0.99")
STAGES, PRECISIONS = (0, 1, 2, 3), ("fp32", "bf16_autocast", "bf16_weights")
FP32 = [(stage, "fp32") for stage in STAGES]
EVERY = [pair for pair in itertools.product(STAGES, PRECISIONS) if pair != (0, "bf16_weights")]


def some_or_every(*sample):
    """Runs a test on some pairs of stage and precision in CI, and on all of them in the full run."""
    given = [pytest.param(sample, id="sample"), pytest.param(EVERY, id="every", marks=pytest.mark.full)]
    return pytest.mark.parametrize("pairs", given)


@pytest.mark.slow
def test_one_rank_alone_is_asked_to_stop_and_both_leave_at_the_same_step(new_runs, launched, made):
    whole = new_runs("whole").attempt(ranks=2)
    launched(whole, ranks=2).end()
    assert outcome.read(whole.folder, 1).result == Result.COMPLETED
    manifest = checkpoints.opened(checkpoints.found(whole.stage.checkpoints)[-1]).manifest
    assert [file["name"] for file in manifest["files"]] == ["rank-0.safetensors", "rank-1.safetensors"]
    runs = new_runs("yielded")
    first_half = launched(runs.attempt(ranks=2, every_s=0), ranks=2)
    first_half.wait_for(5 * BATCH)
    first_half.send(signal.SIGUSR2, rank=1)
    assert first_half.codes() == [75, 75], first_half.logs()
    notes = [outcome.read(first_half.attempt.folder, rank).info for rank in (0, 1)]
    assert notes[0]["images"] == notes[1]["images"] < TOTAL
    assert notes[0]["versions"].keys() >= {"python", "torch", "deepspeed", "numpy", "host", "device"}
    second_half = runs.attempt(ranks=2)
    launched(second_half, ranks=2).end()
    assert made(second_half).digest == made(whole).digest
    assert made(second_half).lineage() == 2


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_run_continues_bit_for_bit(new_runs, ranks, launched, made):
    whole = new_runs("whole").attempt(ranks=ranks)
    launched(whole, ranks=ranks).end()
    runs = new_runs("killed")
    killed = launched(runs.attempt(ranks=ranks, every_s=0), ranks=ranks)
    killed.wait_for(9 * BATCH)
    for rank in range(ranks):
        killed.send(signal.SIGKILL, rank=rank)
    assert set(killed.codes()) == {-signal.SIGKILL}
    again = runs.attempt(ranks=ranks)
    launched(again, ranks=ranks).end()
    assert made(again).digest == made(whole).digest
    assert made(again).lineage() == 2


@pytest.mark.slow
def test_a_bad_rank_ends_the_attempt_with_its_cause(runs, launched):
    latents = runs.as_source(runs.publish(runs.workshop, bad=range(SAMPLES)))
    failed = launched(runs.attempt(latents=latents, ranks=2), ranks=2)
    assert failed.codes() == [1, 1]
    said = outcome.read(failed.attempt.folder, 0)
    assert said.cause == Cause.NAN
    assert "images 0 to 39" in said.message


def science_of(precision):
    return {"precision": precision, "ema_decay": [0.9, 0.99]}


def near(found, expected, *, rel):
    assert found.keys() == expected.keys()
    return [*found.values()] == pytest.approx([*expected.values()], rel=rel)


@pytest.mark.slow
@some_or_every(*FP32, (2, "bf16_autocast"), (3, "bf16_weights"))
def test_every_stage_and_precision_trains_and_resumes_bit_for_bit(new_runs, run_several, made, pairs):
    """And in fp32 all of them see the losses that one rank sees, and end with its EMAs."""
    wants, tasks, found = (20 * BATCH,), [], {}
    for stage, precision in pairs:
        stores = [new_runs(f"{name}-{stage}-{precision}") for name in ("whole", "stopped")]
        micro = 4 if stage == 3 else 2  # a micro-batch more costs ZeRO 3 the most
        options = {"wants": wants, "ranks": 2, "micro": micro, "layout": {"zero_stage": stage}} | science_of(precision)
        whole, first, second = (store.attempt(**options) for store in (*stores, stores[1]))
        tasks += [(whole, None), (first, 6), (second, None)]
        found[stage, precision] = (whole, first, second)
    run_several(tasks)
    alone = new_runs("alone").attempt(wants=wants, **science_of("fp32"))
    train.run(alone)
    expected = made(alone, wants[0])
    for (_, precision), (whole, first, second) in found.items():
        assert made(second, wants[0]).digest == made(whole, wants[0]).digest
        assert made(second, wants[0]).lineage() == 2
        losses = made(whole).losses
        assert made(first).losses | made(second).losses == losses
        assert near(losses, expected.losses, rel=1e-6 if precision == "fp32" else 0.02)
        if precision == "fp32":
            weights = made(whole, wants[0]).weights
            assert {name.split(".model")[0] for name in weights if ".model" in name} == {"raw", "ema", "ema_0.99"}
            for name, value in expected.weights.items():
                # The bias of the keys moves no loss: its gradient is rounding, which Adam makes as large as any other.
                if not name.endswith("attn.qkv.bias"):
                    assert torch.allclose(weights[name], value, rtol=1e-3, atol=1e-5), name


def sections_of(path):
    """Everything in a checkpoint, and Adam's step."""
    read = checkpoints.opened(path)
    held = {(section, name): one for section in SECTIONS for name, one in read.read(section).items()}
    return held | {"updates": torch.tensor(read.progress["updates"])}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.slow
@some_or_every((1, "fp32"), (3, "fp32"))
def test_a_run_goes_from_one_rank_to_two_and_back(new_runs, run_several, made, pairs):
    wants, more, tasks, runs = (10 * BATCH,), (20 * BATCH,), [], {}
    for stage, precision in pairs:
        store, options = new_runs(f"{stage}-{precision}"), {"layout": {"zero_stage": stage}} | science_of(precision)
        narrow = store.attempt(wants=wants, **options)
        train.run(narrow)
        wide = [store.attempt(wants=wants, ranks=2, **options), store.attempt(wants=more, ranks=2, **options)]
        tasks += [(wide[0], "save"), (wide[1], None)]
        runs[stage, precision] = (narrow, *wide, sections_of(checkpoints.found(narrow.stage.checkpoints)[0]))
    run_several(tasks)
    for (stage, precision), (narrow, resaved, wide, expected) in runs.items():
        saved, last = checkpoints.found(narrow.stage.checkpoints)
        assert (saved.name, last.name) == (f"{wants[0]}-{resaved.number:03d}", f"{more[0]}-{wide.number:03d}")
        assert_equal(sections_of(saved), expected)
        store, options = new_runs(f"alone-{stage}-{precision}"), {"layout": {"zero_stage": stage}}
        alone = store.attempt(wants=more, **options, **science_of(precision))
        train.run(alone)
        tail = {images: loss for images, loss in made(alone).losses.items() if images > wants[0]}
        assert near(made(wide).losses, tail, rel=1e-6 if precision == "fp32" else 1e-3)


@pytest.mark.slow
@some_or_every((0, "fp32"), (1, "bf16_weights"))
def test_a_bad_batch_of_one_rank_is_skipped_by_both_and_five_in_a_row_end_the_run(new_runs, run_several, made, pairs):
    tasks = []
    for stage, precision in pairs:
        runs, options = new_runs(f"{stage}-{precision}"), {"layout": {"zero_stage": stage}} | science_of(precision)
        one, all_ = ([5], range(SAMPLES))
        for bad in (one, all_):
            latents = runs.as_source(runs.publish(runs.workshop, bad=bad))
            tasks.append((runs.attempt(latents=latents, wants=(SAMPLES,), ranks=2, **options), None))
    notes = run_several(tasks)
    for (one, _), (bad, _), said, ended in zip(tasks[::2], tasks[1::2], notes[::2], notes[1::2], strict=True):
        assert (made(one, SAMPLES).info["skipped"], made(one, SAMPLES).info["updates"]) == (1, SAMPLES // BATCH - 1)
        assert "ended" not in said
        assert all(torch.isfinite(value).all() for value in made(one, SAMPLES).weights.values())
        assert ended["ended"].startswith("NonFinite the gradients of 5 steps in a row were not finite: images 0 to 39")
        assert bad.stage.parts("train") == []
