"""Autoencoders that were trained elsewhere, at plan: shapes without network, and what is refused by name."""

import json

import pytest
from huggingface_hub import constants

SHA = "31f26fdeee1355a5c34592e401dd41e45d25a493"
TRAINED = "vae: {kind: autoencoder, images: images}"
CONFIG = {"_class_name": "AutoencoderKL", "block_out_channels": [8, 8], "latent_channels": 16, "in_channels": 3}


def vae(options):
    return TRAINED, f"vae: {{kind: autoencoder, images: images, {options}}}"


@pytest.fixture
def colour(small, tmp_path):
    """The small experiment on colour images that are declared, not looked at."""
    source = "source: {folder: pets, version: v1, num_images: 400, num_classes: 10}"
    return small.replace("source: mnist5k", source).replace("held_out: 500", "held_out: 100")


def write_config(folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))


@pytest.mark.parametrize("name", ["mse", "ema"])
def test_the_published_ones_are_known_without_network_or_cache(expand, colour, name, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    planned = expand(colour, vae(f"hub: stabilityai/sd-vae-ft-{name}, revision: {SHA}"))
    assert planned["vae"].spec.science["hub"] == f"stabilityai/sd-vae-ft-{name}"
    shape = planned["teacher"].where["shape"]
    assert (shape["in_channels"], shape["input_size"]) == (4, 4)


def test_a_folder_says_its_shape_and_its_path_is_out_of_the_key(expand, colour, tmp_path):
    write_config(tmp_path / "a")
    planned = expand(colour, vae("path: a, version: v1"))
    shape = planned["teacher"].where["shape"]
    assert (shape["in_channels"], shape["input_size"]) == (16, 16)
    assert planned["vae"].where["path"] == str(tmp_path / "a")
    write_config(tmp_path / "b")
    assert expand(colour, vae("path: b, version: v1"))["vae"].key == planned["vae"].key
    assert expand(colour, vae("path: a, version: v2"))["vae"].key != planned["vae"].key
    assert expand(colour, vae("path: a, version: v1, scale: measured"))["vae"].key != planned["vae"].key


def test_another_hub_id_is_known_from_the_cache(expand, refused, colour, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    swap = vae(f"hub: some/vae, revision: {SHA}")
    message = refused(colour, swap)
    assert message.startswith(":6: stages.vae.hub = some/vae\n  its shape is not known")
    assert f"hf download some/vae --revision {SHA}; known without it: stabilityai/sd-vae-ft-mse" in message
    write_config(tmp_path / "hub" / "models--some--vae" / "snapshots" / SHA)
    assert expand(colour, swap)["teacher"].where["shape"]["in_channels"] == 16


@pytest.mark.parametrize(
    ("options", "place", "words"),
    [
        ("path: a", "", '"version" is required and not given'),
        ("version: v1", ".version = v1", "version belongs to path, which is not given"),
        ("hub: a/b", "", '"revision" is required and not given'),
        (f"revision: {SHA}", f'.revision = "{SHA}"', "revision belongs to hub"),
        ("hub: a/b, revision: main", ".revision = main", "a branch or a tag may move"),
        (f"hub: vae, revision: {SHA}", ".hub = vae", "not a hub id\n  for example stabilityai/sd-vae-ft-mse"),
        (f"hub: a/b, revision: {SHA}, path: a, version: v", ".hub = a/b", "not from both"),
        ("path: a, version: v, steps: 3", ".steps = 3", "belongs to training"),
        ("path: a, version: v, kl_weight: 0.1", ".kl_weight = 0.1", "trained already\n  remove it"),
        ("path: a, version: v, log_every: 5", ".log_every = 5", "belongs to training"),
        ("scale: config", ".scale = config", "belongs to path or hub"),
        ("path: a, version: v, scale: mine", ".scale = mine", "not one of the valid words"),
        ("path: nowhere, version: v", ".path = nowhere", "config.json cannot be read: No such file"),
        ("path: text, version: v", ".path = text", "not JSON"),
        ("path: unet, version: v", ".path = unet", "_class_name is 'UNet2DModel', not AutoencoderKL"),
        ("path: odd, version: v", ".path = odd", "latent_channels is no whole number"),
        ("path: gray, version: v", ".path = gray", "trained on images of 1 channels, those of images have 3"),
        (
            "path: deep, version: v",
            ".path = deep",
            "[8, 8, 8, 8, 8, 8, 8] divide the resolution by 64, and the resolution of images is 32",
        ),
        ("path: means, version: v", ".path = means", "scales each latent channel apart\n  give scale: measured"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(refused, colour, tmp_path, options, place, words):
    write_config(tmp_path / "a")
    write_config(tmp_path / "unet", _class_name="UNet2DModel")
    write_config(tmp_path / "odd", latent_channels="4")
    write_config(tmp_path / "gray", in_channels=1)
    write_config(tmp_path / "deep", block_out_channels=[8] * 7)
    write_config(tmp_path / "means", latents_mean=[0.0])
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.json").write_text("{")
    message = refused(colour, vae(options))
    assert message.startswith(f":6: stages.vae{place}\n"), message
    assert words in message


def test_an_autoencoder_for_colour_is_refused_for_the_gray_digits(refused, small):
    message = refused(small, vae(f"hub: stabilityai/sd-vae-ft-mse, revision: {SHA}"))
    assert "trained on images of 3 channels, those of images have 1" in message
