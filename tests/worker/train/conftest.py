"""Train stages on a few tiny latents: attempts made by hand, one rank in the test's process, or real processes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from stx import records
from stx.data import shards
from stx.data.latents import LatentsInfo, publish_latents
from stx.worker import features, freeze, tensors, train

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


@pytest.fixture(scope="module", autouse=True)
def process_group():
    """One for the whole test process: DeepSpeed cannot change its group. One thread, as the launched ranks have."""
    torch.set_num_threads(1)
    if not dist.is_initialized():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)


class Runs:
    """Train stages on one set of tiny latents."""

    head, guided = SCIENCE["alignment"], GUIDED

    def __init__(self, workshop, as_source, **shape):
        self.workshop = workshop
        self.as_source = as_source
        self.latents = as_source(self.publish(workshop, **shape))

    @staticmethod
    def publish(workshop, *, bad=(), channels=4, size=4):
        """64 latents in 4 shards; the samples in `bad` are so large that their loss is not finite."""
        attempt = workshop.attempt("latents", science={"bad": list(bad)})
        generator = np.random.default_rng(0)
        labels = np.arange(SAMPLES) % CLASSES
        mean = (
            generator.standard_normal((SAMPLES, channels, size, size)).astype(np.float32) + labels[:, None, None, None]
        )
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
        info = LatentsInfo(channels=channels, size=size, num_classes=CLASSES, class_names=names, **known)
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

    def attempt(
        self,
        *,
        wants=(TOTAL,),
        ranks=1,
        micro=None,
        latents=None,
        every_s=1e9,
        max_stall=1.0,
        inputs=None,
        layout=None,
        **science,
    ):
        """An attempt of a train stage; `layout` are changes of the layout, everything else of the science."""
        micro = micro or BATCH // ranks
        planned = {
            "ranks": ranks,
            "micro_batch": micro,
            "accumulation": BATCH // ranks // micro,
            "zero_stage": 1,
            "activation_checkpointing": False,
            "compile": False,
            "noise_on": "loader",
        }
        return self.workshop.attempt(
            "train",
            science=SCIENCE | science,
            inputs={"latents": latents or self.latents} | (inputs or {}),
            where={"log_every": 1, "teacher_shape": TEACHER["shape"]},
            wants=wants,
            layout=planned | (layout or {}),
            checkpoint_every_s=every_s,
            max_stall=max_stall,
        )


@pytest.fixture
def new_runs(workshop, as_source, tmp_path):
    """Makes stores: the same stage has the same key and the same weights in each."""
    return lambda name, **shape: Runs(type(workshop)(tmp_path / name), as_source, **shape)


@pytest.fixture
def runs(new_runs):
    return new_runs("store")


@pytest.fixture(scope="session")
def all_runs():
    """Runs, for tests that cannot import this file."""
    return Runs


class Made:
    """What an attempt left: of the milestone at `images`, and of itself."""

    def __init__(self, attempt, images=TOTAL):
        self.attempt = attempt
        self.part = attempt.stage.part("train", images)
        self.images = images

    @property
    def weights(self):
        return tensors.read(self.part.path / "weights.safetensors")

    @property
    def digest(self):
        return records.file_digest(self.part.path / "weights.safetensors")

    @property
    def info(self):
        return records.read(self.part.artifact)["info"]

    @property
    def metrics(self):
        return list(records.read_lines(self.attempt.folder.metrics))

    @property
    def losses(self):
        return {line["images"]: line["loss"] for line in self.metrics}

    def lineage(self):
        """How many attempts it has. Every image was trained exactly once along it."""
        lineage = self.info["lineage"]
        ends = [0, *(end for _, end, _ in lineage)]
        assert [begin for begin, _, _ in lineage] == ends[:-1]
        assert ends[-1] == self.images
        return len(lineage)


@pytest.fixture
def made():
    """Made, for tests that cannot import this file."""
    return Made


class Launched:
    """The ranks of an attempt as real processes, as the supervisor starts them."""

    def __init__(self, attempt, *, ranks, program=()):
        self.attempt = attempt
        self.command = program or ("-m", "stx.worker", "run", str(attempt.folder.path))
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
        while not any(line["images"] >= images for line in Made(self.attempt).metrics):
            assert all(process.poll() is None for process in self.processes), self.logs()
            time.sleep(0.005)

    def send(self, number, *, rank):
        self.processes[rank].send_signal(number)

    def codes(self, *, timeout=120):
        try:
            return [process.wait(timeout) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
                process.wait()

    def end(self, *, timeout=120):
        """All have completed."""
        assert set(self.codes(timeout=timeout)) == {0}, self.logs()

    def logs(self):
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.attempt.folder.path.glob("rank-*.log")))


@pytest.fixture
def launched():
    """Launched, likewise."""
    return Launched


# Runs several attempts, one after another, in the ranks of one process group: starting them is what takes long.
SEVERAL = """
import json, sys
from pathlib import Path
from deepspeed.runtime import torch_autocast
from jobs import runtime
from stx.worker import attempt as attempts, ranks, train
from stx.worker.attempt import NonFinite, Yielded
tasks = [(attempts.parse(Path(folder)), what) for folder, what in json.loads(Path(sys.argv[1]).read_text())]
with ranks.process_group(tasks[0][0]) as group:
    for attempt, what in tasks:
        torch_autocast.TORCH_AUTOCAST_INITIALIZED = False  # a worker makes one engine, this process many
        steps = iter(range(what if isinstance(what, int) else 10**9))
        runtime.stop_requested = lambda: next(steps, None) is None
        try:
            train.start(attempt, group).save() if what == "save" else train.run(attempt)
        except (Yielded, NonFinite) as error:
            attempt.notes["ended"] = type(error).__name__ + " " + str(error)
        if group.rank == 0:
            attempt.folder.path.joinpath("notes.json").write_text(json.dumps(attempt.notes))
"""


@pytest.fixture
def run_several(tmp_path):
    """Runs [(attempt, what)] on two ranks; what: None, the number of steps after which to stop, or "save" at once."""

    def run(tasks):
        listed = tmp_path / "tasks.json"
        listed.write_text(json.dumps([[str(attempt.folder.path), what] for attempt, what in tasks]))
        launched = Launched(tasks[0][0], ranks=2, program=("-W", "ignore", "-c", SEVERAL, str(listed)))
        launched.end(timeout=280)
        return [json.loads((attempt.folder.path / "notes.json").read_text()) for attempt, _ in tasks]

    return run


class Forked:
    """Attempts as forks of one warm process (forks.py)."""

    def __init__(self):
        command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("forks.py"))]
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, attempt, *, ranks=1, stop_at=None, kill=None, deadline_s=None, fsync_s=0):
        """One attempt to its end: the ranks' exit codes and the points of their last saves. `stop_at`: {rank: step}."""
        environments = [
            {"RANK": rank, "WORLD_SIZE": ranks, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": ranks} for rank in range(ranks)
        ]
        environments = [{name: str(value) for name, value in one.items()} for one in environments]
        task = {
            "folder": str(attempt.folder.path),
            "environments": [one | {"STX_ATTEMPT": str(attempt.folder.path)} for one in environments],
            "logs": [str(attempt.folder.log(rank)) for rank in range(ranks)],
            "stop_at": stop_at or {},
            "kill": kill,
            "deadline_s": deadline_s,
            "fsync_s": fsync_s,
        }
        self.server.stdin.write(json.dumps(task) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def end(self):
        self.server.communicate(timeout=60)
        assert self.server.returncode == 0


@pytest.fixture(scope="session")
def forked():
    """Forked; starting it takes 5 s."""
    started = Forked()
    yield started
    started.end()
