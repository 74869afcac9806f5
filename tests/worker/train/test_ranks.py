"""Training on two ranks, as real processes: signals, kills, and every ZeRO stage with every precision."""

import contextlib
import itertools
import signal

import pytest
import torch

from jobs import outcome
from jobs.spec import Cause, Result
from stx.worker import checkpoint as checkpoints
from stx.worker import train
from stx.worker.ranks import process_group
from stx.worker.zero.partition import MASTER, MOMENTS

BATCH, STEPS, SAMPLES = 8, 40, 64
TOTAL = BATCH * STEPS
SECTIONS = (MASTER, *MOMENTS, "ema", "ema_0.99")
STAGES, PRECISIONS = (0, 1, 2, 3), ("fp32", "bf16_autocast", "bf16_weights")
FP32 = [(stage, "fp32") for stage in STAGES]
REFUSED = (0, "bf16_weights")


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


def options_of(stage, precision, **more):
    return {"layout": {"zero_stage": stage}, "precision": precision, "ema_decay": [0.9, 0.99]} | more


def near(found, expected, *, rel):
    assert found.keys() == expected.keys()
    return [*found.values()] == pytest.approx([*expected.values()], rel=rel)


def sections_of(path):
    """Everything in a checkpoint, and Adam's step."""
    read = checkpoints.opened(path)
    held = {(section, name): one for section in SECTIONS for name, one in read.read(section).items()}
    return held | {"updates": torch.tensor(read.progress["updates"])}


def resumes(stage, precision, *, new_runs, made, expected):
    """A run that is stopped continues bit for bit; in fp32 it sees the losses of one rank, and has its EMAs."""
    middle, end = 10 * BATCH, 20 * BATCH
    micro = 4 if stage == 3 else 2  # a micro-batch more costs ZeRO 3 the most
    options = options_of(stage, precision, ranks=2, micro=micro)
    whole = new_runs(f"whole-{stage}-{precision}").attempt(wants=(middle, end), **options)
    stopped = new_runs(f"stopped-{stage}-{precision}")
    first, second = (stopped.attempt(wants=(middle,), **options) for _ in range(2))
    yield [(whole, None), (first, 6), (second, None)]
    assert made(second, middle).digest == made(whole, middle).digest
    assert made(second, middle).lineage() == 2
    losses = made(whole).losses
    assert made(first).losses | made(second).losses == {n: loss for n, loss in losses.items() if n <= middle}
    assert near(losses, expected.losses, rel=1e-6 if precision == "fp32" else 0.02)
    weights = made(whole, end).weights
    assert {name.split(".model")[0] for name in weights if ".model" in name} == {"raw", "ema", "ema_0.99"}
    for name, value in expected.weights.items():
        # The bias of the keys moves no loss: its gradient is rounding, which Adam makes as large as any other.
        if precision == "fp32" and not name.endswith("attn.qkv.bias"):
            assert torch.allclose(weights[name], value, rtol=1e-3, atol=1e-5), name


def resizes(stage, precision, *, new_runs, made):
    """A run goes from one rank to two and keeps every bit of its state, and then sees what one rank would see."""
    middle, end = 10 * BATCH, 20 * BATCH
    runs, options = new_runs(f"resized-{stage}-{precision}"), options_of(stage, precision)
    narrow = runs.attempt(wants=(middle,), **options)
    train.run(narrow)
    (path,) = checkpoints.found(narrow.stage.checkpoints)
    expected = sections_of(path)
    resaved, wide = (runs.attempt(wants=(count,), ranks=2, **options) for count in (middle, end))
    yield [(resaved, "save"), (wide, None)]
    saved, last = checkpoints.found(narrow.stage.checkpoints)
    assert (saved.name, last.name) == (f"{middle}-{resaved.number:03d}", f"{end}-{wide.number:03d}")
    assert_equal(sections_of(saved), expected)
    alone = new_runs(f"alone-{stage}-{precision}").attempt(wants=(end,), **options)
    train.run(alone)
    tail = {images: loss for images, loss in made(alone).losses.items() if images > middle}
    assert near(made(wide).losses, tail, rel=1e-6 if precision == "fp32" else 1e-3)
    again = runs.attempt(wants=(end,), **options)
    with process_group(again) as group:
        train.start(again, group).save()
    assert_equal(sections_of(checkpoints.found(again.stage.checkpoints)[-1]), sections_of(last))


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def skips(stage, precision, *, new_runs, made):
    """A bad batch of one rank is skipped by both; five in a row end the run, which says at what images."""
    runs, options = new_runs(f"bad-{stage}-{precision}"), options_of(stage, precision, wants=(SAMPLES,), ranks=2)
    one, every = (runs.as_source(runs.publish(runs.workshop, bad=bad)) for bad in ([5], range(SAMPLES)))
    survives, fails = runs.attempt(latents=one, **options), runs.attempt(latents=every, **options)
    notes = yield [(survives, None), (fails, None)]
    assert "ended" not in notes[0]
    info = made(survives, SAMPLES).info
    assert (info["skipped"], info["updates"]) == (1, SAMPLES // BATCH - 1)
    assert all(torch.isfinite(value).all() for value in made(survives, SAMPLES).weights.values())
    assert notes[1]["ended"].startswith("NonFinite the gradients of 5 steps in a row were not finite: images 0 to 39")
    assert fails.stage.parts("train") == []


def every(stage):
    """All checks with all precisions of a stage: part of the full run."""
    pairs = [(stage, precision) for precision in PRECISIONS if (stage, precision) != REFUSED]
    return pytest.param(pairs, pairs, pairs, id=f"zero {stage}", marks=pytest.mark.full)


SAMPLE = pytest.param(
    [*FP32, (2, "bf16_autocast"), (3, "bf16_weights")],
    [(1, "fp32"), (3, "fp32")],
    [(0, "fp32"), (1, "bf16_weights")],
    id="sample",
)


@pytest.mark.slow
@pytest.mark.parametrize(("resumed", "resized", "skipped"), [SAMPLE, *map(every, STAGES)])
def test_every_stage_and_precision_resumes_resizes_and_skips(new_runs, run_several, made, resumed, resized, skipped):
    """All runs that need two ranks are made by one pair of processes, between the two halves of their checks."""
    alone = new_runs("alone").attempt(wants=(20 * BATCH,), **options_of(1, "fp32"))
    train.run(alone)
    expected, tools = made(alone, 20 * BATCH), {"new_runs": new_runs, "made": made}
    checks = [resumes(*pair, **tools, expected=expected) for pair in resumed]
    checks += [resizes(*pair, **tools) for pair in resized]
    checks += [skips(*pair, **tools) for pair in skipped]
    wanted = [next(check) for check in checks]
    notes = iter(run_several(list(itertools.chain(*wanted))))
    for check, tasks in zip(checks, wanted, strict=True):
        with contextlib.suppress(StopIteration):
            check.send(list(itertools.islice(notes, len(tasks))))
