"""Real training of a tiny SiT with DeepSpeed: one rank in this process, two ranks as real processes."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import torch.distributed as dist

from jobs import outcome
from jobs.spec import Cause, Result
from stx import records
from stx.data import shards
from stx.data.latents import LatentsInfo, publish_latents
from stx.errors import DataError
from stx.worker import checkpoint as checkpoints
from stx.worker import features, freeze, tensors, train
from stx.worker.attempt import NonFinite, Yielded
from stx.worker.loop import Loop
from stx.worker.zero.partition import MASTER, MOMENTS

SECTIONS = (MASTER, *MOMENTS, "ema")

BATCH, STEPS, SAMPLES, CLASSES = 8, 40, 64, 4
TOTAL = BATCH * STEPS
SCIENCE = {
    "model": {"depth": 2, "width": 32, "heads": 2, "patch": 2},
    "global_batch": BATCH,
    "precision": "fp32",
    "lr": 1e-3,
    "betas": [0.9, 0.999],
    "weight_decay": 0.0,
    "grad_clip": 1.0,
    "ema_decay": 0.9,
    "label_dropout": 0.1,
    "qk_norm": False,
    "t_distribution": "uniform",
    "order_window": 16,
    "alignment": {
        "method": "velocity_head",
        "head_block": 1,
        "window": [0.4, 0.7],
        "weight": 0.5,
        "window_reduction": "in_window",
        "projector_width": 16,
        "stop_step": None,
    },
}
GUIDED = SCIENCE["alignment"] | {"method": "guided_teacher", "student_block": 1, "teacher_block": 2, "guidance": 5.0}
TEACHER = {"shape": SCIENCE["model"] | {"in_channels": 4, "input_size": 4, "num_classes": CLASSES, "qk_norm": False}}
VANILLA = {"alignment": {"method": "none"}}


@pytest.fixture(scope="module", autouse=True)
def process_group():
    """One for the whole test process: DeepSpeed cannot change its group. One thread, as the launched ranks have."""
    torch.set_num_threads(1)
    if not dist.is_initialized():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)


class Runs:
    """Train stages on one set of tiny latents."""

    def __init__(self, workshop, as_source):
        self.workshop = workshop
        self.as_source = as_source
        self.latents = as_source(self.publish(workshop))

    @staticmethod
    def publish(workshop, *, bad=()):
        """64 latents in 4 shards; the samples in `bad` are so large that their loss is not finite."""
        attempt = workshop.attempt("latents", science={"bad": list(bad)})
        generator = np.random.default_rng(0)
        labels = np.arange(SAMPLES) % CLASSES
        mean = generator.standard_normal((SAMPLES, 4, 4, 4)).astype(np.float32) + labels[:, None, None, None]
        mean[list(bad)] = 1e30
        std = np.full_like(mean, 0.1)
        payload = attempt.stage.payload
        payload.mkdir()
        for number in range(4):
            rows = slice(16 * number, 16 * (number + 1))
            publish_latents(
                payload, number, first=rows.start, mean=mean[rows], std=std[rows], labels=labels[rows], dtype="fp32"
            )
        shards.publish_index(payload, "train", num_shards=4)
        names = tuple(str(label) for label in range(CLASSES))
        known = {"scale": 0.5, "shift": 0.0, "autoencoder": "digest", "count": SAMPLES, "dtype": "fp32"}
        info = LatentsInfo(channels=4, size=4, num_classes=CLASSES, class_names=names, **known)
        records.publish(payload / "latents.json", info.dump())
        return attempt

    def teacher(self):
        """A frozen phase-1 run."""
        run = self.attempt(wants=(80,), seed=100)
        train.run(run)
        source = self.as_source(run, images=80)
        frozen = self.workshop.attempt("freeze", science={"weights": "raw"}, inputs={"run": source}, where=TEACHER)
        freeze.run(frozen)
        return self.as_source(frozen)

    def features(self, teacher):
        """Its cached features."""
        science = {"teacher_block": 2, "window": [0.4, 0.7], "draws": 2, "dtype": "bf16", "batch": 16, "shard": 16}
        made = self.workshop.attempt(
            "features",
            science=science | {"t_distribution": "uniform", "seed": 5},
            inputs={"teacher": teacher, "latents": self.latents},
            where=TEACHER | {"interpolant": "linear"},
        )
        features.run(made)
        return self.as_source(made)

    def attempt(self, *, wants=(TOTAL,), ranks=1, micro=None, latents=None, every_s=1e9, inputs=None, **science):
        micro = micro or BATCH // ranks
        layout = {
            "ranks": ranks,
            "micro_batch": micro,
            "accumulation": BATCH // ranks // micro,
            "zero_stage": 1,
            "activation_checkpointing": False,
        }
        return self.workshop.attempt(
            "train",
            science=SCIENCE | science,
            inputs={"latents": latents or self.latents} | (inputs or {}),
            where={"log_every": 1, "teacher_shape": TEACHER["shape"]},
            wants=wants,
            layout=layout | {"compile": False, "noise_on": "loader"},
            checkpoint_every_s=every_s,
        )


@pytest.fixture
def new_runs(workshop, as_source, tmp_path):
    """Makes stores: the same stage has the same key and the same weights in each."""
    return lambda name: Runs(type(workshop)(tmp_path / name), as_source)


@pytest.fixture
def runs(new_runs):
    return new_runs("store")


def weights_of(attempt, images=TOTAL):
    return attempt.stage.part("train", images).path / "weights.safetensors"


def digest(attempt, images=TOTAL):
    return records.file_digest(weights_of(attempt, images))


def metrics(attempt):
    return list(records.read_lines(attempt.folder.metrics))


def losses(attempt):
    return {line["images"]: line["loss"] for line in metrics(attempt)}


def info_of(attempt, images=TOTAL):
    return records.read(attempt.stage.part("train", images).artifact)["info"]


def assert_lineage(attempt, *, parts, images=TOTAL):
    """Every image was trained exactly once along the lineage."""
    lineage = info_of(attempt, images)["lineage"]
    ends = [0, *(end for _, end, _ in lineage)]
    assert [begin for begin, _, _ in lineage] == ends[:-1]
    assert ends[-1] == images
    assert len(lineage) == parts


def test_a_run_learns_and_publishes_raw_and_ema_weights_at_every_wanted_count(runs):
    attempt = runs.attempt(wants=(160, TOTAL))
    train.run(attempt)
    assert attempt.stage.parts("train") == [160, TOTAL]
    lines = metrics(attempt)
    assert [line["images"] for line in lines] == list(range(BATCH, TOTAL + 1, BATCH))
    assert np.mean([line["diffusion"] for line in lines[-8:]]) < np.mean([line["diffusion"] for line in lines[:8]])
    assert {"loss", "grad_norm", "images_per_s", "loader_wait_s", "time"} <= lines[0].keys()
    assert any("alignment.velocity_head" in line for line in lines)
    weights = tensors.read(weights_of(attempt))
    raw = {name.removeprefix("raw.") for name in weights if name.startswith("raw.")}
    ema = {name.removeprefix("ema.") for name in weights if name.startswith("ema.")}
    assert raw == ema
    assert {name.split(".")[0] for name in raw} == {"model", "alignment"}
    assert "model.blocks.0.attn.qkv.weight" in raw
    assert any(not torch.equal(weights[f"raw.{name}"], weights[f"ema.{name}"]) for name in raw)
    assert_lineage(attempt, parts=1)
    assert (attempt.notes["from"], attempt.notes["to"]) == (0, TOTAL)


@pytest.mark.parametrize("science", [{}, VANILLA], ids=["velocity_head", "none"])
def test_a_run_that_yields_continues_bit_for_bit(new_runs, stop, science):
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
    assert digest(second) == digest(whole)
    assert_lineage(second, parts=2)
    assert losses(first) | losses(second) == losses(whole)


@pytest.mark.parametrize("cached", [False, True], ids=["online", "cached"])
def test_phase_2_trains_against_the_frozen_teacher_and_resumes_bit_for_bit(new_runs, stop, cached):
    digests = []
    for name, stop_after in (("whole", 10**9), ("interrupted", 21)):
        runs = new_runs(name)
        inputs = {"alignment.teacher": runs.teacher()}
        if cached:
            inputs["alignment.features"] = runs.features(inputs["alignment.teacher"])
        stop.after(stop_after)
        first = runs.attempt(inputs=inputs, alignment=GUIDED)
        with contextlib.suppress(Yielded):
            train.run(first)
        stop.after(10**9)
        last = runs.attempt(inputs=inputs, alignment=GUIDED)
        train.run(last)
        digests.append(digest(last))
        aligned = [line for line in metrics(first) if "alignment.guided_teacher" in line]
        assert aligned
        assert all(line["target_rms"] > 0 and abs(line["guidance_cosine"]) <= 1 for line in aligned)
        assert not any("teacher" in name for name in tensors.read(weights_of(last)))
    assert digests[0] == digests[1]


def test_a_cache_made_for_another_block_is_refused(runs):
    teacher = runs.teacher()
    inputs = {"alignment.teacher": teacher, "alignment.features": runs.features(teacher)}
    with pytest.raises(DataError, match="teacher block"):
        train.run(runs.attempt(inputs=inputs, alignment=GUIDED | {"teacher_block": 1}))


def test_micro_batches_change_nothing_but_the_rounding(new_runs):
    whole, cut = new_runs("whole").attempt(), new_runs("cut").attempt(micro=2)
    for attempt in (whole, cut):
        train.run(attempt)
    first = range(BATCH, 21 * BATCH, BATCH)
    assert [losses(cut)[n] for n in first] == pytest.approx([losses(whole)[n] for n in first], rel=1e-6)


def test_raising_the_steps_resumes_and_recomputes_nothing(new_runs):
    whole = new_runs("whole").attempt()
    train.run(whole)
    runs = new_runs("raised")
    short = runs.attempt(wants=(160,))
    train.run(short)
    longer = runs.attempt()
    train.run(longer)
    assert next(line["images"] for line in metrics(longer)) == 160 + BATCH
    assert longer.notes["recomputed_images"] == 0
    assert digest(longer) == digest(whole)
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


def test_a_kill_between_checkpoint_and_milestone_loses_no_milestone(runs):
    train.run(runs.attempt(wants=(160, TOTAL)))
    attempt = runs.attempt(wants=(160, TOTAL))
    before = digest(attempt, 160), digest(attempt)
    shutil.rmtree(attempt.stage.path / "milestones")
    train.run(attempt)
    assert (digest(attempt, 160), digest(attempt)) == before
    assert not attempt.folder.metrics.exists()


def test_a_damaged_checkpoint_costs_recomputing_and_changes_nothing(runs, caplog):
    train.run(runs.attempt(wants=(160, TOTAL)))
    attempt = runs.attempt(wants=(160, TOTAL))
    before = digest(attempt)
    shutil.rmtree(attempt.stage.part("train", TOTAL).path)
    newest = checkpoints.found(attempt.stage.checkpoints)[-1] / "rank-0.safetensors"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    train.run(attempt)
    assert "is damaged and not used" in caplog.text
    assert digest(attempt) == before
    assert metrics(attempt)[0]["images"] == 160 + BATCH


def test_a_batch_with_bad_gradients_is_seen_and_changes_no_weight(runs, caplog):
    latents = runs.as_source(runs.publish(runs.workshop, bad=[5]))
    attempt = runs.attempt(latents=latents)
    train.run(attempt)
    info = info_of(attempt)
    assert info["skipped"] == TOTAL // SAMPLES
    assert info["updates"] == STEPS - info["skipped"]
    assert all(torch.isfinite(value).all() for value in tensors.read(weights_of(attempt)).values())
    assert "skipped step images=" in caplog.text
    assert sum(line["loss"] is None for line in metrics(attempt)) == info["skipped"]


def test_five_bad_batches_in_a_row_end_the_run(runs):
    latents = runs.as_source(runs.publish(runs.workshop, bad=range(SAMPLES)))
    with pytest.raises(NonFinite, match="5 steps in a row were not finite: images 0 to 39"):
        train.run(runs.attempt(latents=latents))


def test_a_save_that_does_not_fit_the_time_left_is_not_begun(runs, stop, monkeypatch):
    attempt = runs.attempt(wants=(80, TOTAL))
    monkeypatch.setenv("STX_DEADLINE", "0")
    stop.after(14)
    with pytest.raises(Yielded):
        train.run(attempt)
    assert attempt.notes["saved"] is False
    assert attempt.notes["unsaved_images"] == 5 * BATCH
    assert [path.name for path in checkpoints.found(attempt.stage.checkpoints)] == ["80-001"]


class Launched:
    """The ranks of an attempt as real processes, as the supervisor starts them."""

    def __init__(self, attempt, *, ranks, program=None):
        folder = str(attempt.folder.path)
        self.attempt = attempt
        self.command = ["-m", "stx.worker", "run", folder] if program is None else ["-c", program, folder]
        self.processes = [self._start(rank, ranks) for rank in range(ranks)]

    def _start(self, rank, ranks):
        own = {"RANK": rank, "WORLD_SIZE": ranks, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": ranks}
        own |= {"STX_ATTEMPT": self.attempt.folder.path, "OMP_NUM_THREADS": 1}
        with self.attempt.folder.log(rank).open("wb") as log:
            return subprocess.Popen(
                [sys.executable, *self.command],
                env=os.environ | {name: str(value) for name, value in own.items()},
                stdout=log,
                stderr=log,
            )

    def wait_for(self, images):
        """Until a metrics line says that so many images were seen."""
        while not any(line["images"] >= images for line in metrics(self.attempt)):
            assert all(process.poll() is None for process in self.processes), self.logs()
            time.sleep(0.005)

    def send(self, number, *, rank):
        self.processes[rank].send_signal(number)

    def codes(self):
        return [process.wait(timeout=120) for process in self.processes]

    def logs(self):
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.attempt.folder.path.glob("rank-*.log")))


def launch(attempt, *, ranks, program=None):
    """Run to the end."""
    launched = Launched(attempt, ranks=ranks, program=program)
    codes = launched.codes()
    assert set(codes) == {0}, launched.logs()
    return launched


@pytest.mark.slow
def test_two_ranks_see_the_same_losses_as_one_and_their_milestones_resume_bit_for_bit(new_runs):
    one, two = new_runs("one").attempt(), new_runs("two").attempt(ranks=2)
    train.run(one)
    launch(two, ranks=2)
    first = range(BATCH, 21 * BATCH, BATCH)
    assert [losses(two)[n] for n in first] == pytest.approx([losses(one)[n] for n in first], rel=1e-6)
    assert outcome.read(two.folder, 1).result == Result.COMPLETED
    manifest = checkpoints.opened(checkpoints.found(two.stage.checkpoints)[-1]).manifest
    assert [file["name"] for file in manifest["files"]] == ["rank-0.safetensors", "rank-1.safetensors"]
    runs = new_runs("yielded")
    first_half = Launched(runs.attempt(ranks=2, every_s=0), ranks=2)
    first_half.wait_for(5 * BATCH)
    # One rank alone sees the signal; both leave at the same step.
    first_half.send(signal.SIGUSR2, rank=1)
    assert first_half.codes() == [75, 75], first_half.logs()
    notes = [outcome.read(first_half.attempt.folder, rank).info for rank in (0, 1)]
    assert notes[0]["images"] == notes[1]["images"] < TOTAL
    second_half = runs.attempt(ranks=2)
    launch(second_half, ranks=2)
    assert digest(second_half) == digest(two)
    assert_lineage(second_half, parts=2)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_run_continues_bit_for_bit(new_runs, ranks):
    whole = new_runs("whole").attempt(ranks=ranks)
    launch(whole, ranks=ranks)
    runs = new_runs("killed")
    killed = Launched(runs.attempt(ranks=ranks, every_s=0), ranks=ranks)
    killed.wait_for(9 * BATCH)
    for rank in range(ranks):
        killed.send(signal.SIGKILL, rank=rank)
    assert set(killed.codes()) == {-signal.SIGKILL}
    again = runs.attempt(ranks=ranks)
    launch(again, ranks=ranks)
    assert digest(again) == digest(whole)
    assert_lineage(again, parts=2)


# Restores, and saves what it restored.
RESAVE = """
import sys
from pathlib import Path
from stx.worker import attempt, ranks, train
one = attempt.parse(Path(sys.argv[1]))
with ranks.process_group(one) as group:
    train.start(one, group).save()
"""


def sections_of(path):
    """Everything in a checkpoint, and Adam's step."""
    read = checkpoints.opened(path)
    tensors_read = {(section, name): one for section in SECTIONS for name, one in read.read(section).items()}
    return tensors_read, read.progress["updates"]


@pytest.mark.slow
def test_a_run_goes_from_one_rank_to_two_and_back(new_runs):
    runs, alone = new_runs("resized"), new_runs("one")
    for store in (runs, alone):
        train.run(store.attempt(wants=(80,)))
    for ranks in (2, 1):
        launch(runs.attempt(wants=(80,), ranks=ranks), ranks=ranks, program=RESAVE)
    narrow, again = checkpoints.found(runs.attempt(wants=(80,)).stage.checkpoints)
    assert (narrow.name, again.name) == ("80-002", "80-003")
    expected, updates = sections_of(checkpoints.found(alone.attempt(wants=(80,)).stage.checkpoints)[0])
    for path in (narrow, again):
        found, count = sections_of(path)
        assert count == updates == 10
        assert found.keys() == expected.keys()
        assert all(torch.equal(value, expected[key]) for key, value in found.items())
    shutil.rmtree(again)
    stay, wide = alone.attempt(wants=(240,)), runs.attempt(wants=(240,), ranks=2)
    train.run(stay)
    launch(wide, ranks=2)
    common = range(80 + BATCH, 240 + 1, BATCH)
    assert [losses(wide)[n] for n in common] == pytest.approx([losses(stay)[n] for n in common], rel=1e-6)


@pytest.mark.slow
def test_a_bad_rank_ends_the_attempt_with_its_cause(runs):
    latents = runs.as_source(runs.publish(runs.workshop, bad=range(SAMPLES)))
    launched = Launched(runs.attempt(latents=latents, ranks=2), ranks=2)
    assert launched.codes() == [1, 1]
    assert outcome.read(launched.attempt.folder, 0).cause == Cause.NAN
