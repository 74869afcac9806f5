"""A folder of colour photographs (crops of scikit-learn's two) through every stage that sees pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stx import records
from stx.model.blocks import initialised
from stx.model.sit import SiT
from stx.sizes import SitShape
from stx.worker import autoencoder, classifier, evaluate, images, latents, publish, sample, tensors

MODEL = {"depth": 2, "width": 32, "heads": 2, "patch": 2}
SHAPE = {**MODEL, "in_channels": 4, "input_size": 8, "num_classes": 2, "qk_norm": False}
AUTOENCODER = {"steps": 2, "batch": 4, "lr": 1e-3, "channels": [8, 8], "latent_channels": 4, "kl_weight": 1e-3}
AUTOENCODER |= {"layers_per_block": 1, "mid_attention": False}


@pytest.fixture
def photos(tmp_path) -> Path:
    """Two classes of 24 PNGs, 40 x 32."""
    from sklearn.datasets import load_sample_images

    found = load_sample_images()
    for name, photo in zip(("china", "flower"), found.images, strict=True):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(24):
            top, left = 60 * (number // 6), 90 * (number % 6)
            Image.fromarray(photo[top : top + 32, left : left + 40]).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def test_colour_images_go_through_every_stage_that_sees_pixels(workshop, photos, as_source) -> None:
    def finished(kind, run, *, science, inputs=None, where=None):
        attempt = workshop.attempt(kind, science=science, inputs=inputs, where={"log_every": 1, **(where or {})})
        run(attempt)
        return as_source(attempt)

    source = {"source": {"form": "folder", "version": "v1"}, "resolution": 16, "held_out": 8}
    pictures = finished("images", images.run, science=source, where={"source": {"path": str(photos)}})
    inputs = {"images": pictures}
    coder = finished("autoencoder", autoencoder.run, science=AUTOENCODER, inputs=inputs)
    encoding = {"dtype": "fp32", "batch": 8, "shard": 24}
    encoded = finished("latents", latents.run, science=encoding, inputs=inputs | {"autoencoder": coder})
    judging = {"steps": 2, "batch": 8, "lr": 1e-3, "channels": [4, 8]}
    judge = finished("classifier", classifier.run, science=judging, inputs=inputs)
    assert records.read(judge.path / "payload" / "classifier.json")["class_names"] == ["china", "flower"]
    assert records.read(encoded.path / "payload" / "latents.json")["class_names"] == ["china", "flower"]

    trained = workshop.attempt("train", science={"model": MODEL, "ema_decay": 0.9}, inputs={"latents": encoded})
    net = initialised(lambda: SiT(SitShape(**MODEL), in_channels=4, input_size=8, num_classes=2), seed=0)
    part = trained.stage.part("train", 8)
    weights = {f"ema.model.{name}": value for name, value in net.state_dict().items()}
    digest = publish.publish_chunks(part.path / "weights.safetensors", tensors.chunks(weights))
    publish.finish(trained, part, names={"weights.safetensors": digest}, images=8, info={})
    sampler = {"solver": "euler", "steps": 2, "guidance": 1.0, "interval": [0.0, 1.0]}
    made = workshop.attempt(
        "sample",
        science={"num_samples": 8, "labels": "balanced", "batch": 8, "sampler": sampler, "weights": "ema"},
        inputs={"run": as_source(trained, whole=True), "latents": encoded, "autoencoder": coder},
        where={"shape": SHAPE, "interpolant": "linear"},
        wants=(8,),
    )
    sample.run(made)
    pixels = np.load(made.stage.part("sample", 8).path / "samples-00000.npy")
    assert (pixels.shape, pixels.dtype) == ((8, 16, 16, 3), np.uint8)
    scored = workshop.attempt(
        "evaluate",
        science={"metrics": ["frechet_distance", "label_accuracy"], "batch": 8},
        inputs={"samples": as_source(made, whole=True), "against": pictures, "extractor.classifier": judge},
        wants=(8,),
    )
    evaluate.run(scored)
    scores = records.read(scored.stage.part("evaluate", 8).path / "scores.json")["scores"]
    assert all(np.isfinite(value) for value in scores.values())


def test_a_large_split_trains_and_judges_as_a_small_one_does(workshop, photos, as_source, monkeypatch) -> None:
    source = {"source": {"form": "folder", "version": "v1"}, "resolution": 16, "held_out": 8}
    pictures = workshop.attempt("images", science=source, where={"source": {"path": str(photos)}})
    images.run(pictures)
    digests = []
    for whole_bytes in (1 << 20, 1):
        monkeypatch.setattr(images, "WHOLE_BYTES", whole_bytes)
        inputs = {"images": as_source(pictures)}
        coder = workshop.attempt("autoencoder", science=AUTOENCODER, inputs=inputs, where={"log_every": 1})
        autoencoder.run(coder)
        loaded = autoencoder.load(coder.stage.payload)
        digests.append((records.read(coder.stage.result.artifact)["digest"], loaded.scale))
        for path in sorted(coder.stage.path.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    assert digests[0] == digests[1]
    assert isinstance(images.read_split(as_input(pictures), "train").images[[0, 5]], torch.Tensor)


def as_input(attempt):
    return images.InputPath("images", attempt.key, None, attempt.stage.path)
