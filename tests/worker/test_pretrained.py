"""Autoencoders that were trained elsewhere: real diffusers folders and a hub cache laid out on disk."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers.models import AutoencoderKL
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from stx import records
from stx.errors import DataError
from stx.model.blocks import initialised
from stx.worker import autoencoder, latents

WEIGHTS = "diffusion_pytorch_model.safetensors"
HUB, REVISION = "someone/vae", "0123456789abcdef0123456789abcdef01234567"
OF_PATH, OF_HUB = {"version": "v1"}, {"hub": HUB, "revision": REVISION}


def made() -> AutoencoderKL:
    down, up = ("DownEncoderBlock2D",) * 3, ("UpDecoderBlock2D",) * 3
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=down,
        up_block_types=up,
        block_out_channels=(8, 8, 16),
        norm_num_groups=4,
    )


@pytest.fixture(scope="session")
def original(tmp_path_factory) -> Path:
    """What save_pretrained writes."""
    folder = tmp_path_factory.mktemp("vae")
    initialised(made, seed=0).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(original, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(original, tmp_path / "vae"))


@pytest.fixture
def cache(original, tmp_path, monkeypatch) -> Path:
    """A hub cache that holds it, on a machine without network."""
    root = tmp_path / "hub"
    snapshot = root / "models--someone--vae" / "snapshots" / REVISION
    blobs = root / "models--someone--vae" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(original.iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return root


def attempt_at(workshop, pipeline, folder, *, science=OF_PATH):
    where = {"path": str(folder)} if folder else {}
    return workshop.attempt("autoencoder", science=science, inputs={"images": pipeline.images}, where=where)


def run(workshop, pipeline, folder, *, science=OF_PATH):
    attempt = attempt_at(workshop, pipeline, folder, science=science)
    autoencoder.run(attempt)
    return attempt


def test_a_folder_is_copied_with_its_own_scale_and_measured(workshop, pipeline, folder, as_source) -> None:
    attempt = run(workshop, pipeline, folder)
    loaded = autoencoder.load(attempt.stage.payload)
    assert (loaded.scale, loaded.shift, loaded.latent_shape) == (0.18215, 0.0, (4, 8, 8))
    assert {path.name for path in attempt.stage.payload.iterdir()} == {
        "autoencoder.safetensors",
        "config.json",
        "origin.json",
        "quality.json",
    }
    expected = load_file(folder / WEIGHTS)
    assert all(torch.equal(value, expected[name]) for name, value in loaded.model.state_dict().items())
    origin = records.read(attempt.stage.payload / "origin.json")
    assert origin["version"] == "v1"
    assert origin["scale"] == "config"
    assert origin["sha256"][WEIGHTS] == records.file_digest(folder / WEIGHTS)
    quality = records.read(attempt.stage.payload / "quality.json")
    assert quality["held_out_images"] == 32
    assert 0.0 < quality["psnr"] < 60.0


def test_latents_are_made_with_it(workshop, pipeline, folder, as_source) -> None:
    source = as_source(run(workshop, pipeline, folder))
    science = {"dtype": "fp32", "batch": 8, "shard": 24}
    encoded = workshop.attempt("latents", science=science, inputs={"images": pipeline.images, "autoencoder": source})
    latents.run(encoded)
    info = records.read(encoded.stage.payload / "latents.json")
    assert (info["channels"], info["size"], info["scale"], info["shift"]) == (4, 8, 0.18215, 0.0)


def test_its_scale_can_be_measured_instead(workshop, pipeline, folder) -> None:
    attempt = run(workshop, pipeline, folder, science=OF_PATH | {"scale": "measured"})
    loaded = autoencoder.load(attempt.stage.payload)
    assert loaded.scale != 0.18215
    assert records.read(attempt.stage.payload / "config.json")["scaling_factor"] == loaded.scale


def test_a_shift_of_its_own_is_kept(workshop, pipeline, folder) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"shift_factor": 0.1159, "scaling_factor": 0.3611}))
    loaded = autoencoder.load(run(workshop, pipeline, folder).stage.payload)
    assert (loaded.scale, loaded.shift) == (0.3611, 0.1159)


def test_a_hub_id_is_read_from_the_cache_without_network(workshop, pipeline, folder, cache, payload_digest) -> None:
    attempt = run(workshop, pipeline, None, science=OF_HUB)
    origin = records.read(attempt.stage.payload / "origin.json")
    assert (origin["hub"], origin["revision"]) == (HUB, REVISION)
    by_path = run(workshop, pipeline, folder)
    for name in ("autoencoder.safetensors", "config.json", "quality.json"):
        assert (attempt.stage.payload / name).read_bytes() == (by_path.stage.payload / name).read_bytes()


def test_a_revision_that_is_not_in_the_cache_says_how_to_get_it(workshop, pipeline, cache) -> None:
    other = "f" * 40
    with pytest.raises(DataError) as caught:
        run(workshop, pipeline, None, science={"hub": HUB, "revision": other})
    message = str(caught.value)
    assert message.startswith(f"{HUB} at {other}\n  is not in the local hub cache and cannot be fetched: ")
    assert f"hf download {HUB} config.json {WEIGHTS} --revision {other}" in message


def test_the_names_of_old_weights_are_understood(workshop, pipeline, folder) -> None:
    new = load_file(folder / WEIGHTS)
    renames = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for name, value in new.items():
        for now, before in renames.items():
            name = name.replace(f"attentions.0.{now}.", f"attentions.0.{before}.")
        old[name] = value
    assert old.keys() != new.keys()
    save_file(old, folder / WEIGHTS, metadata={"format": "pt"})
    loaded = autoencoder.load(run(workshop, pipeline, folder).stage.payload)
    assert all(torch.equal(value, new[name]) for name, value in loaded.model.state_dict().items())


def changed(folder, change) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights: weights.pop("decoder.conv_in.bias"), "misses 1 weights: decoder.conv_in.bias"),
        (lambda weights: weights.update(x=torch.zeros(1)), "has unknown 1 weights: x"),
        (
            lambda weights: weights.update({"decoder.conv_in.bias": torch.zeros(3)}),
            "size mismatch for decoder.conv_in.bias",
        ),
        (lambda weights: weights["decoder.conv_in.bias"].fill_(float("nan")), "not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(workshop, pipeline, folder, change, words, caplog) -> None:
    changed(folder, change)
    with pytest.raises(DataError, match=words):
        run(workshop, pipeline, folder)


def test_missing_damaged_and_foreign_files_are_named(workshop, pipeline, folder) -> None:
    (folder / WEIGHTS).rename(folder / "diffusion_pytorch_model.bin")
    with pytest.raises(DataError, match=rf"vae\n  no {WEIGHTS}\n  .*a pickle"):
        run(workshop, pipeline, folder)
    (folder / WEIGHTS).write_bytes(b"not safetensors")
    with pytest.raises(DataError, match="not a readable safetensors file"):
        run(workshop, pipeline, folder, science={"version": "v2"})
    (folder / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"config\.json changed since this stage first ran"):
        run(workshop, pipeline, folder, science={"version": "v2"})


def test_one_for_colour_images_is_refused_for_gray_ones(workshop, pipeline, tmp_path) -> None:
    down, up = ("DownEncoderBlock2D",), ("UpDecoderBlock2D",)
    AutoencoderKL(down_block_types=down, up_block_types=up, block_out_channels=(8,), norm_num_groups=4).save_pretrained(
        tmp_path / "c"
    )
    with pytest.raises(DataError, match="trained on images of 3 channels, these have 1"):
        run(workshop, pipeline, tmp_path / "c")
