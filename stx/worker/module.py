"""The network of a train stage: the student and its alignment as one module, which DeepSpeed trains.

Parameter names are "model.<SiT name>" and "alignment.<name>", in checkpoints and milestones too. Its forward pass is
the whole science of a step: a pure function of the weights and one micro-batch.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stx.alignment.base import Alignment
from stx.data.loader import Batch
from stx.data.noise import Purpose, init_seed
from stx.errors import ConfigError
from stx.flow.interpolant import noisy_at, velocity_target
from stx.flow.objective import diffusion_loss
from stx.model.blocks import initialised
from stx.model.sit import SiT
from stx.named import load
from stx.sizes import SitShape


class StepOutput(NamedTuple):
    """`loss` is this rank's part of the global batch's loss; `scalars` are detached, for the log."""

    loss: Tensor
    scalars: dict[str, Tensor]


class TrainingModule(nn.Module):
    """Student and alignment; `forward` gives the loss of one micro-batch."""

    def __init__(self, model: SiT, alignment: Alignment, *, interpolant: str) -> None:
        super().__init__()
        self.model = model
        self.alignment = alignment
        self.interpolant = interpolant

    def forward(self, batch: Batch) -> StepOutput:
        """The diffusion term and the alignment's terms, each a sum over rows divided by a number all ranks know."""
        clean, noise, t = batch.latents, batch.noise, batch.t
        noisy = noisy_at(clean, noise, t, interpolant=self.interpolant)
        output = self.model(noisy, t, batch.dropped_labels, taps=self.alignment.taps)
        target = velocity_target(clean, noise, t, interpolant=self.interpolant)
        losses = diffusion_loss(output.velocity, target)
        diffusion = losses.sum() / batch.global_batch
        aligned = self.alignment(batch, output.hidden)
        loss = torch.stack([diffusion, *aligned.terms.values()]).sum()
        scalars = {"loss": loss, "diffusion": diffusion}
        scalars |= {f"alignment.{name}": term for name, term in aligned.terms.items()}
        scalars |= aligned.numbers
        return StepOutput(loss=loss, scalars={name: value.detach() for name, value in scalars.items()})


class Inputs(NamedTuple):
    """What the latents say of the network's two ends."""

    in_channels: int
    input_size: int
    num_classes: int


def build(
    science: Mapping[str, Any],
    *,
    inputs: Inputs,
    teacher: SiT | None,
    feature_width: int | None,
) -> TrainingModule:
    """The module of a train stage with its initial weights, on the CPU; a function of the science options only."""
    shape, options = shape_of(science["model"]), science["alignment"]
    method = load("stx.alignment", options["method"])
    ends = inputs._asdict()
    seed, interpolant = science["seed"], science.get("interpolant", "linear")
    model = initialised(
        lambda: SiT(shape, **ends, qk_norm=science["qk_norm"]), seed=init_seed(seed, Purpose.TRAIN_INIT)
    )
    alignment = initialised(
        lambda: method.build(
            options, shape=shape, **ends, interpolant=interpolant, teacher=teacher, feature_width=feature_width
        ),
        seed=init_seed(seed, Purpose.ALIGNMENT_INIT),
    )
    return TrainingModule(model, alignment, interpolant=interpolant)


def shape_of(record: Mapping[str, Any]) -> SitShape:
    """{depth, width, heads, patch} and possibly more -> SitShape."""
    return SitShape(**{name: record[name] for name in ("depth", "width", "heads", "patch")})


def check(record: Mapping[str, Any]) -> None:
    """Refuse what cannot be built or run, on the meta device: no memory, no arithmetic. `record` is of stx.plan."""
    shape, aligned, teacher_shape = record["shape"], record["alignment"], record.get("teacher_shape")
    where = f"model {dict(shape)} with alignment {dict(aligned)}, teacher {teacher_shape}"
    inputs = Inputs(**{name: shape[name] for name in Inputs._fields})
    science = {"model": shape, "alignment": aligned, "qk_norm": shape["qk_norm"], "seed": 0}
    try:
        with torch.device("meta"):
            teacher = None if teacher_shape is None else _meta_teacher(teacher_shape)
            module = build(science, inputs=inputs, teacher=teacher, feature_width=None)
            _check_taps(module)
            module(_meta_batch(inputs))
    except KeyError as error:
        raise ConfigError(f"there is no block {error} to take hidden states from", where=where) from error
    except (AssertionError, RuntimeError, ValueError, TypeError) as error:
        raise ConfigError(str(error), where=where) from error


def _meta_teacher(shape: Mapping[str, Any]) -> SiT:
    ends = {name: shape[name] for name in Inputs._fields}
    return SiT(shape_of(shape), **ends, qk_norm=shape["qk_norm"])


def _check_taps(module: TrainingModule) -> None:
    depth = module.model.shape.depth
    bad = [block for block in module.alignment.taps if not 1 <= block <= depth]
    if bad:
        raise ConfigError(f"taps block {bad[0]} of a student with {depth} blocks", hint=f"blocks are 1..{depth}")


def _meta_batch(inputs: Inputs) -> Batch:
    """Two rows inside the window. Which rows are is data, so that mask is real; everything else has a shape only."""
    size = (2, inputs.in_channels, inputs.input_size, inputs.input_size)
    labels = torch.zeros(2, dtype=torch.int64)
    return Batch(
        first=0,
        samples=labels,
        latents=torch.zeros(size),
        noise=torch.zeros(size),
        t=torch.zeros(2),
        labels=labels,
        dropped_labels=labels,
        in_window=torch.ones(2, dtype=torch.bool, device="cpu"),
        window_rows=2,
        global_batch=2,
        features=None,
    )
