"""The autoencoder stage on 64 digits."""

import json
from pathlib import Path

import pytest
import torch
from diffusers.models import AutoencoderKL
from safetensors.torch import load_file

from jobs.runtime import Heart
from stx import records
from stx.data.latents import scaled
from stx.errors import DataError
from stx.model import rows
from stx.worker import autoencoder
from stx.worker.attempt import InputPath, Yielded
from stx.worker.images import read_split


def images_input(pipeline) -> InputPath:
    source = pipeline.images
    return InputPath("images", source.input.key, None, source.path)


def payload_of(source) -> Path:
    return source.path / "payload"


def test_the_scale_makes_train_latents_standard(pipeline) -> None:
    loaded = autoencoder.load(payload_of(pipeline.autoencoder))
    train = read_split(images_input(pipeline), "train").images
    mean, std = rows.chunked(loaded.encode, train, batch=16).chunk(2, dim=1)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(mean.shape, generator=generator)
    latents = scaled(mean, std, noise, scale=loaded.scale, shift=loaded.shift)
    assert abs(float(latents.mean())) < 0.05
    assert abs(float(latents.std()) - 1.0) < 0.05


def test_latents_are_decoded_by_what_undoes_their_scale(pipeline) -> None:
    loaded = autoencoder.load(payload_of(pipeline.autoencoder))
    train = read_split(images_input(pipeline), "train").images[:4]
    mean, std = loaded.encode(train).chunk(2, dim=1)
    latents = scaled(mean, std, torch.zeros_like(mean), scale=loaded.scale, shift=loaded.shift)
    with torch.no_grad():
        direct = autoencoder.autoencoder.to_uint8(autoencoder.autoencoder.decode(loaded.model, mean))
    difference = (loaded.decode(latents).int() - direct.int()).abs()
    assert int(difference.max()) <= 1
    assert loaded.latent_shape == (4, 8, 8)


def test_diffusers_opens_what_was_published(pipeline) -> None:
    payload = payload_of(pipeline.autoencoder)
    config = json.loads((payload / "config.json").read_text())
    model = AutoencoderKL.from_config(config)
    model.load_state_dict(load_file(payload / "autoencoder.safetensors"))
    assert model.config.scaling_factor == config["scaling_factor"] > 0


def test_quality_is_measured_on_held_out_images(pipeline) -> None:
    quality = records.read(payload_of(pipeline.autoencoder) / "quality.json")
    assert quality["held_out_images"] == 32
    assert 3.0 < quality["psnr_sampled"] <= quality["psnr"] + 1.0 < 60.0


def test_a_stopped_training_goes_on_to_the_same_digest(workshop, pipeline, stop, payload_digest) -> None:
    straight = pipeline.autoencoder
    digest = records.read(straight.path / "artifact.json")["digest"]
    for path in (straight.path / "artifact.json", *payload_of(straight).iterdir()):
        path.unlink()
    for checkpoint in (straight.path / "checkpoints").glob("*/*"):
        checkpoint.unlink()
    for checkpoint in (straight.path / "checkpoints").iterdir():
        checkpoint.rmdir()
    science = records.read(straight.path / "stage.json")["science"]

    def again():
        return workshop.attempt(
            "autoencoder", science=science, inputs={"images": pipeline.images}, where={"log_every": 1}
        )

    stop.now()
    stopped = again()
    with pytest.raises(Yielded):
        autoencoder.run(stopped)
    assert stopped.notes["images"] == science["batch"]
    stop.never()
    finished = again()
    autoencoder.run(finished)
    assert payload_digest(finished) == digest


@pytest.mark.parametrize("name", ["autoencoder.safetensors", "config.json"])
def test_a_changed_byte_is_named_and_not_computed_with(pipeline, name: str) -> None:
    path = payload_of(pipeline.autoencoder) / name
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"{name}\n  damaged"):
        autoencoder.load(path.parent)


@pytest.mark.full
def test_the_quickstart_setting_reaches_the_quality_that_was_tried(workshop, as_source) -> None:
    from stx.worker import images

    source = workshop.attempt("images", science={"source": "mnist5k", "resolution": 32, "held_out": 500})
    images.run(source)
    science = {
        "steps": 400,
        "batch": 32,
        "lr": 2e-3,
        "channels": [16, 32, 32],
        "latent_channels": 4,
        "layers_per_block": 1,
        "mid_attention": False,
        "kl_weight": 1e-3,
    }
    attempt = workshop.attempt(
        "autoencoder", science=science, inputs={"images": as_source(source)}, where={"log_every": 100}
    )
    autoencoder.run(attempt)
    assert records.read(attempt.stage.payload / "quality.json")["psnr"] > 25.0


def test_the_scale_of_many_images_is_measured_on_some_that_are_spread_over_all(pipeline, monkeypatch) -> None:
    loaded = autoencoder.load(payload_of(pipeline.autoencoder))
    heart = Heart(payload_of(pipeline.autoencoder))
    train = read_split(images_input(pipeline), "train").images
    monkeypatch.setattr(autoencoder, "SCALE_IMAGES", 16)
    of_some = autoencoder._measured(loaded, train, heart=heart)
    of_those = autoencoder._measured(loaded, train[0:64:4], heart=heart)
    assert of_some.scale == pytest.approx(of_those.scale, rel=1e-6)
    monkeypatch.setattr(autoencoder, "SCALE_IMAGES", 64)
    assert abs(autoencoder._measured(loaded, train, heart=heart).scale / of_some.scale - 1.0) > 1e-5
