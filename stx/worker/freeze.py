"""The freeze stage: one SiT, checked and copied out of a run's milestone or of a file of the user's, becomes a teacher
that nobody changes any more.

    payload/teacher.safetensors   fp32, the published SiT's names
            teacher.json          shape, which weights, where they come from

A file of the user's is safetensors with exactly the SiT's parameters (and maybe its fixed pos_embed). What it does not
say (the size of the latents) its consumers know; what it does say (latent channels, classes) is read from its shapes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stx.errors import DataError
from stx.model.sit import SiT
from stx.paths import WEIGHTS
from stx.worker import publish, sit_weights, tensors
from stx.worker.attempt import Attempt, check_external, fingerprint
from stx.worker.device import device
from stx.worker.progress import Progress, conclude

PROBE_TOKENS_PER_SIDE = 4
_PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl")


class Source(NamedTuple):
    """Weights by name, the shape of their SiT, and what teacher.json says of their origin."""

    weights: dict[str, Tensor]
    shape: dict[str, Any]
    origin: dict[str, Any]
    path: Path


def run(attempt: Attempt) -> None:
    """Read, check, publish."""
    attempt.heart.beat("start")
    progress = Progress(attempt, total=1)
    source = _from_run(attempt) if "run" in attempt.inputs else _from_file(attempt)
    model = sit_weights.built(source.weights, shape=source.shape, where=str(source.path))
    _probe(model, where=str(source.path))
    payload = attempt.stage.payload
    progress.saving()
    publish.publish_chunks(payload / sit_weights.TEACHER_FILE, tensors.chunks(model.state_dict()))
    publish.publish_json(payload / "teacher.json", {"shape": source.shape, "from": source.origin})
    conclude(progress)


def _from_run(attempt: Attempt) -> Source:
    run_input, section = attempt.input("run"), attempt.where["section"]
    found = sit_weights.milestone_weights(run_input.part, section=section)
    origin = {"run": run_input.key, "images": run_input.images, "weights": section}
    return Source(found, dict(attempt.where["shape"]), origin, run_input.path / WEIGHTS)


def _from_file(attempt: Attempt) -> Source:
    path = Path(attempt.where["checkpoint"])
    _refuse_pickle(path)
    check_external(attempt, name="checkpoint", path=path)
    found = tensors.read(path)
    shape = _shape_of(found, model=attempt.science["model"], where=str(path))
    origin = {"version": attempt.science["version"], "sha256": fingerprint(path)["sha256"]}
    return Source(found, shape | {"qk_norm": attempt.science["qk_norm"]}, origin, path)


def _refuse_pickle(path: Path) -> None:
    """A pickle runs whatever its author wrote when it is opened, so none is opened here."""
    if path.suffix.lower() in _PICKLES:
        raise DataError(
            f"a {path.suffix} file is a pickle, which can run code when opened; a checkpoint must be safetensors",
            where=str(path),
            hint=f"if you trust it: {tensors.CONVERT}",
        )


def _shape_of(weights: Mapping[str, Tensor], *, model: Mapping[str, int], where: str) -> dict[str, Any]:
    """The plan's model with what the file's own shapes say.

    The size of the latents is a probe's unless the file carries pos_embed.
    """
    try:
        in_channels = weights["x_embedder.proj.weight"].shape[1]
        num_classes = len(weights["y_embedder.embedding_table.weight"]) - 1
    except KeyError as error:
        names = ", ".join(sorted(weights)[:3])
        raise DataError(
            f"not the weights of a SiT: {error.args[0]} is missing",
            where=where,
            hint=f"its names start with {names}; those of the published SiT are needed, without a prefix",
        ) from error
    tokens = weights["pos_embed"].shape[1] if "pos_embed" in weights else PROBE_TOKENS_PER_SIDE**2
    input_size = model["patch"] * round(tokens**0.5)
    return {**model, "in_channels": in_channels, "input_size": input_size, "num_classes": num_classes}


def _probe(model: SiT, *, where: str) -> None:
    """One forward pass over every part of t, with a label and with the null label: shapes and finite numbers."""
    shape = (4, model.in_channels, model.input_size, model.input_size)
    noisy = torch.linspace(-2.0, 2.0, steps=int(torch.tensor(shape).prod())).reshape(shape).to(device())
    t = torch.linspace(0.0, 1.0, steps=4).to(device())
    labels = torch.tensor([0, model.null_label, 0, model.null_label]).to(device())
    with torch.no_grad():
        velocity = model(noisy, t, labels).velocity
    if velocity.shape != noisy.shape or not bool(velocity.isfinite().all()):
        raise DataError("a forward pass with these weights gives numbers that are not finite", where=where)
