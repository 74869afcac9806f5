"""Stages that work through rows, as real jobs on several ranks: killed, asked to leave, and run again on another number
of ranks, they end in the payload of an undisturbed run.
"""

import os
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch

from jobs import outcome
from jobs.launchers.local import LocalLauncher
from jobs.spec import JobSpec, JobState, Resources, Result
from stx import named, records
from stx.worker import freeze

FAULTS = Path(__file__).parent / "faults"
IMAGES = 320
SAMPLER = {"solver": "sde", "steps": 3, "guidance": 3.0, "interval": [0.2, 0.8]}
# Eight units each.
SCIENCE = {
    "latents": {"dtype": "fp32", "batch": 4, "shard": 8, "flips": False},
    "features": {
        "teacher_block": 2,
        "window": [0.4, 0.7],
        "draws": 2,
        "dtype": "fp32",
        "t_distribution": "uniform",
        "batch": 8,
        "shard": 8,
    },
    "sample": {"num_samples": 60, "labels": "balanced", "batch": 8, "sampler": SAMPLER, "weights": "ema"},
}


class Stage:
    """One stage of a kind, and its attempts as jobs."""

    def __init__(self, kind, *, new_attempt, launcher):
        self.kind = kind
        self.new_attempt = new_attempt
        self.launcher = launcher

    @property
    def images(self):
        return IMAGES if self.kind == "sample" else None

    def undisturbed(self, payload_digest):
        """The digest of one rank's run in this process; the stage is removed again."""
        attempt = self.new_attempt()
        named.load("stx.worker", self.kind).run(attempt)
        digest = payload_digest(attempt, images=self.images)
        shutil.rmtree(attempt.stage.path)
        return digest

    def run(self, *, ranks, signal=""):
        """The next attempt as a job on `ranks` ranks; what they said, by rank."""
        attempt = self.new_attempt(ranks)
        folder = attempt.folder
        path = os.pathsep.join([str(FAULTS), *filter(None, [os.environ.get("PYTHONPATH")])])
        job = JobSpec(
            tag=attempt.tag,
            argv=(sys.executable, "-m", "stx.worker", "run", str(folder.path)),
            attempt_dir=folder.path,
            cwd=folder.path,
            resources=Resources(ranks_per_node=ranks),
            env={"PYTHONPATH": path, "STX_TEST_SIGNAL": signal},
        )
        records.write(folder.intent, {"tag": attempt.tag, "job": job.dump()})
        handle = self.launcher.submit(job)
        while self.launcher.poll([handle], {job.tag: folder.path})[handle].state is not JobState.ENDED:
            time.sleep(0.1)  # pytest-timeout ends a test that hangs
        said = [outcome.read(folder, rank) for rank in range(ranks)]
        assert all(one is None or one.result is not Result.FAILED for one in said), said
        return [one and one.result for one in said], attempt

    def units(self, attempt):
        """The units that stand, and which file each is."""
        folder = attempt.stage.payload if self.images is None else attempt.stage.part(self.kind, self.images).path
        return {path.name: path.stat().st_ino for path in folder.glob("*-[0-9]*.*") if path.suffix in (".tar", ".npy")}


@pytest.fixture
def new_stage(workshop, pipeline, as_source, sit_shape, tmp_path, monkeypatch):
    """The stage of a kind, with real inputs."""
    monkeypatch.setenv("STX_CORES", "4")
    monkeypatch.setenv("STX_GPUS", "0")
    where = {"shape": sit_shape, "interpolant": "linear"}
    inputs = {"latents": pipeline.latents, "autoencoder": pipeline.autoencoder}

    def make(kind):
        given = inputs | {"images": pipeline.images}
        if kind != "latents":
            pipeline.milestone(IMAGES, seed=1)
            frozen = workshop.attempt(
                "freeze",
                science={"weights": "raw"},
                inputs={"run": as_source(pipeline.run, images=IMAGES)},
                where=where,
            )
            freeze.run(frozen)
            given |= {"teacher": as_source(frozen), "run": as_source(pipeline.run, whole=True)}

        def new_attempt(ranks=1):
            wants = (IMAGES,) if kind == "sample" else ()
            return workshop.attempt(
                kind, science=SCIENCE[kind], inputs=given, wants=wants, where=where, layout={"ranks": ranks}
            )

        return Stage(kind, new_attempt=new_attempt, launcher=LocalLauncher(slots_dir=tmp_path / "slots"))

    return make


def check(stage, payload_digest, ranks):
    """Killed on the first number of ranks, asked to leave on the second, ended on the third."""
    torch.set_num_threads(1)
    expected = stage.undisturbed(payload_digest)
    lost, _ = stage.run(ranks=ranks[0], signal=f"{1 % ranks[0]} KILL")
    assert lost[1 % ranks[0]] is None, "the killed rank left no word"
    left, attempt = stage.run(ranks=ranks[1], signal=f"{1 % ranks[1]} USR2")
    assert left[1 % ranks[1]] is Result.YIELDED
    stood = stage.units(attempt)
    assert 0 < len(stood) < 8
    ended, attempt = stage.run(ranks=ranks[2])
    assert set(ended) == {Result.COMPLETED}
    standing = stage.units(attempt)
    assert len(standing) == 8
    assert {name: standing[name] for name in stood} == stood, "what stood was not made again"
    assert payload_digest(attempt, images=stage.images) == expected


@pytest.mark.slow
def test_encoding_that_was_interrupted_ends_in_the_same_payload(new_stage, payload_digest):
    check(new_stage("latents"), payload_digest, (1, 2, 1))


@pytest.mark.full
@pytest.mark.parametrize("ranks", [(2, 1, 2), (1, 2, 3), (3, 2, 1)], ids=str)
@pytest.mark.parametrize("kind", sorted(SCIENCE))
def test_rows_that_were_interrupted_end_in_the_same_payload(new_stage, payload_digest, kind, ranks):
    check(new_stage(kind), payload_digest, ranks)
