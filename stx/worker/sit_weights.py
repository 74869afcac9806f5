"""SiTs out of files: a milestone of a run, a frozen teacher. Strict; in eval mode, on the device, without gradients.

    milestones/<images>/weights.safetensors   <section>.model.*: raw, ema, ema_<decay> (and <section>.alignment.*, which
                                              no consumer reads)
    payload/teacher.safetensors               the parameters under their own names
            teacher.json                      {shape, from}

`shape` is the plan's {depth, width, heads, patch, in_channels, input_size, num_classes, qk_norm}.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from stx import records
from stx.errors import DataError
from stx.model.blocks import initialised
from stx.model.sit import SiT, load_weights
from stx.paths import WEIGHTS, PartDir
from stx.sizes import SitShape
from stx.worker import tensors
from stx.worker.device import device
from stx.worker.inputs import verified, verified_payload

TEACHER_FILE = "teacher.safetensors"


def milestone_weights(part: PartDir, *, section: str) -> dict[str, Tensor]:
    """The SiT of a milestone, by its own parameter names. The plan chooses the section (stx/stages/train.py)."""
    path = verified(part, WEIGHTS)
    prefix = f"{section}.model."
    found = {name.removeprefix(prefix): value for name, value in tensors.read(path).items() if name.startswith(prefix)}
    if not found:
        raise DataError(f"no parameter is named {prefix}*", where=str(path))
    return found


def milestone(part: PartDir, *, section: str, shape: Mapping[str, Any]) -> SiT:
    """The SiT of a milestone."""
    return built(milestone_weights(part, section=section), shape=shape, where=str(part.path / WEIGHTS))


def load_teacher(payload: Path, *, shape: Mapping[str, Any]) -> SiT:
    """A frozen teacher of the plan's `shape`. A teacher from a file may have been frozen without its latents' size."""
    path = verified_payload(payload, TEACHER_FILE)
    frozen = records.read(verified_payload(payload, "teacher.json"))["shape"] | {"input_size": shape["input_size"]}
    if frozen != dict(shape):
        raise DataError(f"the teacher is {frozen}, the plan wants {dict(shape)}", where=str(path))
    return built(tensors.read(path), shape=shape, where=str(path))


def built(weights: Mapping[str, Tensor], *, shape: Mapping[str, Any], where: str) -> SiT:
    """A SiT with these weights."""
    model = initialised(lambda: _fresh(shape), seed=0)
    load_weights(model, weights, where=where)
    return model.requires_grad_(False).eval().to(device())


def _fresh(shape: Mapping[str, Any]) -> SiT:
    sit_shape = SitShape(depth=shape["depth"], width=shape["width"], heads=shape["heads"], patch=shape["patch"])
    return SiT(
        sit_shape,
        in_channels=shape["in_channels"],
        input_size=shape["input_size"],
        num_classes=shape["num_classes"],
        qk_norm=shape["qk_norm"],
    )
