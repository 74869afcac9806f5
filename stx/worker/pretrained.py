"""An autoencoder that was trained elsewhere: diffusers' AutoencoderKL from a folder of the user's or from the hub.

Weights are safetensors, complete and without strangers (diffusers would fill gaps with fresh weights and go on). Hub
files come from the local cache; only what is not there is fetched, and a machine without network says how to get it.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from stx import records
from stx.errors import DataError
from stx.worker import tensors
from stx.worker.attempt import Attempt, check_external

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
_NO_MODEL = (OSError, ValueError, RuntimeError, TypeError, KeyError)


class Pretrained(NamedTuple):
    """The model in fp32, the arguments it is built with (diffusers'), and what origin.json says."""

    model: nn.Module
    built_with: dict[str, Any]
    origin: dict[str, Any]


def read(attempt: Attempt, *, resolution: int, channels: int) -> Pretrained:
    """The model that the stage names; its sample_size becomes the images' resolution."""
    science = attempt.science
    folder = _of_hub(science["hub"], science["revision"]) if "hub" in science else Path(attempt.where["path"])
    for name in (CONFIG, WEIGHTS):
        _check_file(folder / name)
        check_external(attempt, name=name, path=folder / name)
    model = _model(folder)
    config = {name: value for name, value in model.config.items() if not name.startswith("_")}
    if config["in_channels"] != channels:
        what = f"it was trained on images of {config['in_channels']} channels, these have {channels}"
        raise DataError(what, where=str(folder))
    names = ("hub", "revision", "version")
    origin = {name: science[name] for name in names if name in science} | {"scale": science.get("scale", "config")}
    digests = {name: records.file_digest(folder / name) for name in (CONFIG, WEIGHTS)}
    own = {"scaling_factor": float(config["scaling_factor"]), "shift_factor": float(config["shift_factor"] or 0.0)}
    return Pretrained(model, config | own | {"sample_size": resolution}, origin | {"sha256": digests})


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise DataError(
            f"no {path.name}",
            where=str(path.parent),
            hint="AutoencoderKL.save_pretrained(FOLDER) writes both files; a pickle (.bin) is not opened here",
        )


def _of_hub(name: str, revision: str) -> Path:
    """The folder of the local hub cache that holds both files at that commit."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    paths = [try_to_load_from_cache(name, file, revision=revision) for file in (CONFIG, WEIGHTS)]
    try:
        found = [
            Path(path if isinstance(path, str) else hf_hub_download(name, file, revision=revision))
            for path, file in zip(paths, (CONFIG, WEIGHTS), strict=True)
        ]
    except (OSError, ValueError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(
            f"is not in the local hub cache and cannot be fetched: {first}",
            where=f"{name} at {revision}",
            hint=f"on a machine with network, with the same HF_HOME: hf download {name} {CONFIG} {WEIGHTS} "
            f"--revision {revision}",
        ) from error
    return found[0].parent


def _model(folder: Path) -> nn.Module:
    """The AutoencoderKL in `folder`, fp32, every weight from the file. We look at both files before diffusers does."""
    records.read((folder / CONFIG).resolve())
    with tensors.opened(folder / WEIGHTS):
        pass
    from diffusers.models import AutoencoderKL

    try:
        model, info = AutoencoderKL.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,
            torch_dtype=torch.float32,
            output_loading_info=True,
        )
    except _NO_MODEL as error:
        raise DataError(f"no AutoencoderKL can be built of it: {error}", where=str(folder)) from error
    for word, names in (("misses", info["missing_keys"]), ("has unknown", info["unexpected_keys"])):
        if names:
            listed = ", ".join(sorted(names)[:3])
            raise DataError(f"{WEIGHTS} {word} {len(names)} weights: {listed}", where=str(folder))
    if not all(bool(weight.isfinite().all()) for weight in model.parameters()):
        raise DataError(f"{WEIGHTS} holds numbers that are not finite", where=str(folder))
    return model
