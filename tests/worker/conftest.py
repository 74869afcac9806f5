"""Attempts made by hand: a store in a temporary folder, attempt.json as the coordinator writes it."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from jobs import runtime
from stx import records
from stx.data import images
from stx.model.blocks import initialised
from stx.model.sit import SiT
from stx.paths import StageDir, Store
from stx.sizes import SitShape
from stx.spec import Artifact, Input, StageSpec
from stx.worker import attempt as attempts
from stx.worker import autoencoder, classifier, latents, publish, tensors
from stx.worker.attempt import Attempt
from stx.worker.progress import Progress, conclude


class Source(NamedTuple):
    """A stage as an input of another one."""

    input: Input
    path: Path


class Workshop:
    """One store, and the attempts made in it."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)

    def stage(
        self, kind: str, *, science: Mapping[str, Any], inputs: Mapping[str, Source]
    ) -> tuple[StageSpec, StageDir]:
        """Publish the keyed spec of a stage."""
        hashed = {name: source.input for name, source in inputs.items()}
        spec = StageSpec(kind=kind, recipe=1, science={"seed": 0, **science}, inputs=hashed)
        stage = self.store.stage(kind, spec.key)
        stage.path.mkdir(parents=True, exist_ok=True)
        records.publish(stage.record, spec.hashed())
        return spec, stage

    def attempt(
        self,
        kind: str,
        *,
        science: Mapping[str, Any],
        inputs: Mapping[str, Source] | None = None,
        where: Mapping[str, Any] | None = None,
        wants: tuple[int, ...] = (),
        layout: Mapping[str, Any] | None = None,
        checkpoint_every_s: float = 1e9,
        max_stall: float = 1.0,
        science_digest: str = "d" * 64,
        accept_code: bool = False,
    ) -> Attempt:
        """The next attempt of a stage, as its worker would parse it."""
        inputs = dict(inputs or {})
        spec, stage = self.stage(kind, science=science, inputs=inputs)
        chosen = {"section": science["weights"]} if "weights" in science else {}
        if wants:
            stage.wanted_by.mkdir(exist_ok=True)
            records.write(stage.mark("tests"), {"images": list(wants)})
        number = max(stage.attempts(), default=0) + 1
        folder = stage.attempt(number)
        folder.path.mkdir(parents=True)
        records.publish(folder.intent, {"tag": f"tests-{number}"})
        described = {name: {**vars(source.input), "path": str(source.path)} for name, source in inputs.items()}
        records.write(
            folder.attempt,
            {
                "tag": f"tests-{kind}-{number}",
                "experiment": "tests",
                "number": number,
                "kind": kind,
                "key": spec.key,
                "spec": spec.hashed(),
                "wants": list(wants),
                "where": chosen | dict(where or {}),
                "layout": dict(layout or {"ranks": 1}),
                "inputs": described,
                "threads": 1,
                "hang_after_s": dict.fromkeys(("start", "step", "save", "sample", "evaluate", "other"), 900.0),
                "checkpoint": {"every_s": checkpoint_every_s, "keep": 2, "max_stall": max_stall},
                "time_s": 3600.0,
                "stop_lead_s": 10.0,
                "code": "",
                "science_digest": science_digest,
                "accept_code": accept_code,
            },
        )
        return attempts.parse(folder.path)


def source_of(attempt: Attempt, *, images: int | None = None, whole: bool = False) -> Source:
    """A stage as an input: its only result, one of its parts, or (`whole`) all it grows to."""
    stage = attempt.stage
    path = stage.part(attempt.kind, images).path if images is not None and not whole else stage.path
    return Source(Input(attempt.kind, attempt.key, images), path)


def digest_of(attempt: Attempt, *, images: int | None = None) -> str:
    """The payload digest of a finished result."""
    part = attempt.stage.result if images is None else attempt.stage.part(attempt.kind, images)
    return Artifact.parse(records.read(part.artifact)).digest


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """A fresh store."""
    return Workshop(tmp_path / "store")


@pytest.fixture(scope="session")
def new_workshop() -> Callable[[Path], Workshop]:
    """Workshop, for tests that cannot import this file."""
    return Workshop


class Stop:
    """A request to stop, as the signal handler sees it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def now(self) -> None:
        """The signal has come."""
        self._monkeypatch.setattr(runtime, "_stop", True)

    def never(self) -> None:
        """No signal has come."""
        self._monkeypatch.setattr(runtime, "_stop", False)

    def after(self, count: int) -> None:
        """The signal comes when a worker has asked for it `count` times."""
        asked = iter(range(count))
        self._monkeypatch.setattr(runtime, "stop_requested", lambda: next(asked, None) is None)


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stop]:
    """Lets a test ask its worker to stop; undone afterwards."""
    yield Stop(monkeypatch)


@pytest.fixture(scope="session")
def as_source() -> Callable[..., Source]:
    """source_of, for tests that cannot import this file."""
    return source_of


@pytest.fixture
def payload_digest() -> Callable[..., str]:
    """digest_of, likewise."""
    return digest_of


MODEL = {"depth": 2, "width": 32, "heads": 2, "patch": 2}
SHAPE = {**MODEL, "in_channels": 4, "input_size": 8, "num_classes": 10, "qk_norm": False}
SMALL_AUTOENCODER = {
    "steps": 2,
    "batch": 4,
    "lr": 1e-3,
    "channels": [8, 8, 8],
    "latent_channels": 4,
    "layers_per_block": 1,
    "mid_attention": False,
    "kl_weight": 1e-3,
}
SMALL_CLASSIFIER = {"steps": 2, "batch": 8, "lr": 1e-3, "channels": [4, 8]}


class Pipeline:
    """Tiny real stages on real digits: 64 to train on, 32 held out. Each is made when first asked for."""

    def __init__(self, workshop: Workshop, digits: Any) -> None:
        self._workshop = workshop
        self._digits = digits

    @cached_property
    def images(self) -> Source:
        """An images stage."""
        attempt = self._workshop.attempt("images", science={"source": "mnist5k", "resolution": 32, "held_out": 32})
        payload = attempt.stage.payload
        payload.mkdir()
        counts = {"train": 64, "held_out": 32}
        spans = {"train": slice(0, 64), "held_out": slice(64, 96)}
        for name, rows in spans.items():
            images.publish_images(
                payload, name, images=self._digits.images[rows], labels=self._digits.labels[rows], shard=40
            )
        names = self._digits.class_names
        info = images.ImagesInfo(resolution=32, channels=1, num_classes=10, class_names=names, counts=counts)
        publish.publish_json(payload / "images.json", info.dump())
        conclude(Progress(attempt, total=96))
        return source_of(attempt)

    @cached_property
    def autoencoder(self) -> Source:
        """An autoencoder stage."""
        inputs = {"images": self.images}
        attempt = self._workshop.attempt(
            "autoencoder", science=SMALL_AUTOENCODER, inputs=inputs, where={"log_every": 1}
        )
        autoencoder.run(attempt)
        return source_of(attempt)

    def latents_attempt(self, *, seed: int = 0) -> Attempt:
        """An attempt of a latents stage."""
        science = {"dtype": "fp32", "batch": 8, "shard": 24, "seed": seed}
        inputs = {"images": self.images, "autoencoder": self.autoencoder}
        return self._workshop.attempt("latents", science=science, inputs=inputs)

    @cached_property
    def latents(self) -> Source:
        """A latents stage."""
        attempt = self.latents_attempt()
        latents.run(attempt)
        return source_of(attempt)

    @cached_property
    def classifier(self) -> Source:
        """A classifier stage."""
        inputs = {"images": self.images}
        attempt = self._workshop.attempt("classifier", science=SMALL_CLASSIFIER, inputs=inputs, where={"log_every": 1})
        classifier.run(attempt)
        return source_of(attempt)

    @cached_property
    def run(self) -> Attempt:
        """A train stage without milestones."""
        science = {"model": MODEL, "ema_decay": 0.9}
        return self._workshop.attempt("train", science=science, inputs={"latents": self.latents})

    def copied(self, workshop: Workshop) -> "Pipeline":
        """The finished stages in another store."""
        shutil.copytree(self._workshop.store.root, workshop.store.root)
        copy = Pipeline(workshop, self._digits)
        for name in ("images", "autoencoder", "latents", "classifier"):
            source: Source = getattr(self, name)
            # Fills the cached_property of the same name.
            copy.__dict__[name] = Source(source.input, workshop.store.stages / source.path.name)
        return copy

    def milestone(self, images_seen: int, *, seed: int) -> None:
        """Add a milestone to the run, with the raw weights of `seed` and the EMA of `seed` + 1."""
        weights = {f"raw.model.{name}": value for name, value in trained_sit(seed).state_dict().items()}
        weights |= {f"ema.model.{name}": value for name, value in trained_sit(seed + 1).state_dict().items()}
        weights["raw.alignment.head.weight"] = torch.zeros(3)
        part = self.run.stage.part("train", images_seen)
        digest = publish.publish_chunks(part.path / "weights.safetensors", tensors.chunks(weights))
        publish.finish(self.run, part, names={"weights.safetensors": digest}, images=images_seen, info={})


def trained_sit(seed: int) -> SiT:
    """A SiT that predicts something (a fresh one predicts zero)."""
    model = initialised(lambda: SiT(SitShape(**MODEL), in_channels=4, input_size=8, num_classes=10), seed=seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.nn.init.normal_(model.final_layer.linear.weight, std=0.1)
        for block in model.blocks:
            torch.nn.init.normal_(block.adaLN_modulation[1].weight, std=0.1)
    return model


@pytest.fixture(scope="session")
def mnist() -> Any:
    """All 5,000 real digits (reading them takes seconds)."""
    return images.mnist5k(resolution=32)


@pytest.fixture(scope="session")
def digits(mnist: Any) -> Any:
    """96 of them."""
    found = mnist
    chosen = np.arange(0, len(found.labels), len(found.labels) // 96)[:96]
    # Mixed, so that every class is in both splits.
    chosen = chosen[np.argsort(np.arange(96) * 37 % 96)]
    return images.RawImages(found.images[chosen], found.labels[chosen], found.class_names)


@pytest.fixture(scope="session")
def finished_pipeline(tmp_path_factory: pytest.TempPathFactory, digits: Any) -> Pipeline:
    """Images, autoencoder, latents and classifier, made once; tests get copies."""
    made = Pipeline(Workshop(tmp_path_factory.mktemp("pipeline") / "store"), digits)
    assert made.latents
    assert made.classifier
    return made


@pytest.fixture
def pipeline(workshop: Workshop, finished_pipeline: Pipeline) -> Pipeline:
    """Tiny stages in the test's own store."""
    return finished_pipeline.copied(workshop)


@pytest.fixture
def sit_of_seed() -> Callable[[int], SiT]:
    """trained_sit, for tests that cannot import this file."""
    return trained_sit


@pytest.fixture
def sit_shape() -> dict[str, Any]:
    """The plan's shape of the pipeline's SiT."""
    return dict(SHAPE)
