"""inspect: what a run's milestones hold inside: principal components of hidden states, its teacher's guided features,
linear probes of every block. One stage for each run (`runs` fans out), with one part a milestone.
"""

import itertools
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PlainValidator

from stx import sizes
from stx.config.schema import (
    Many,
    Positive,
    Problem,
    StageOptions,
    choice,
    fan_out,
    goal,
    group,
    refusal,
    science,
)
from stx.config.schema import (
    Options as Group,
)
from stx.spec import Cost
from stx.stages import autoencoder, base, images, latents, sample, train
from stx.stages.base import Inputs

RECIPE = 1
job = base.job
layouts = base.layouts
wants = sample.wants


def _ascending(times: tuple[float, ...]) -> tuple[float, ...]:
    if any(later <= earlier for earlier, later in itertools.pairwise(times)):
        raise refusal("must be ascending, without repetition", f"sorted: {sorted(set(times))}")
    return times


def _blocks(value: Any) -> str | tuple[int, ...]:
    if value == "all":
        return "all"
    numbers = isinstance(value, list | tuple) and bool(value)
    if numbers and all(isinstance(one, int) and not isinstance(one, bool) and one > 0 for one in value):
        return tuple(sorted(set(value)))
    raise refusal("must be all, or a list of blocks, counted from 1")


Time = Annotated[float, Field(ge=0, le=1)]


class Probe(Group):
    """A ridge classifier on hidden states: fitted on `num_train` train images, judged on `num_test` held-out ones."""

    num_train: Positive = science(1000)
    num_test: Positive = science(500)
    ridge: float = science(1e-3, gt=0)


class Options(StageOptions):
    """`num_images` held-out images are pictured at every t of `times`; networks see chunks of `batch` rows."""

    runs: Many[str] = fan_out("train", singular="run")
    at: Annotated[str | tuple[int, ...], PlainValidator(sample.milestones_asked)] = goal("last")
    weights: Annotated[str, choice("ema", "raw")] = science("ema")
    ema_decay: float | None = science(None, neutral=None)
    times: Annotated[Many[Time], AfterValidator(_ascending)] = science((0.2, 0.4, 0.6, 0.8), min_length=1)
    blocks: Annotated[str | tuple[int, ...], PlainValidator(_blocks)] = science("all")
    num_images: Positive = science(8)
    batch: Positive = science(64)
    probe: Probe = group(Probe)


def derived(inputs: Inputs) -> Inputs:
    """Latents, decoder and images are those of the run; so is the teacher, if its alignment has one."""
    run = inputs["run"]
    below = run.inputs["latents"]
    found = {"latents": below, "autoencoder": below.inputs["autoencoder"], "images": below.inputs["images"]}
    teacher = run.inputs.get("alignment.teacher")
    return found if teacher is None else found | {"teacher": teacher}


def check(options: Options, inputs: Inputs) -> list[Problem]:
    """Milestones and blocks are the run's, and there are as many images as are asked for."""
    found, model = sample.check_milestones(options.at, inputs["run"]), inputs["run"].options.model
    found += train.check_weights(options.weights, options.ema_decay, inputs["run"])
    if isinstance(options.blocks, tuple) and options.blocks[-1] > model.depth:
        what = f"the run {inputs['run'].name} is a {model.name}, so blocks must be in 1..{model.depth}"
        found.append(Problem(("blocks",), what))
    held_out, num_train = inputs["images"].options.held_out, latents.num_samples(inputs["latents"])
    for path, asked, there, split in (
        (("num_images",), options.num_images, held_out, "held-out"),
        (("probe", "num_test"), options.probe.num_test, held_out, "held-out"),
        (("probe", "num_train"), options.probe.num_train, num_train, "train"),
    ):
        if asked > there:
            found.append(Problem(path, f"there are {there} {split} images", f"valid: 1..{there}"))
    return found


def smoke(options: Options) -> dict[str, Any]:
    """Two pictures and a few rows for the probes, at the end of the run."""
    probe = {f"probe.{name}": min(getattr(options.probe, name), 2) for name in ("num_train", "num_test")}
    return {"at": "last", "num_images": min(options.num_images, 2), **probe}


def facts(options: Options, inputs: Inputs) -> dict[str, Any]:
    """The networks, and what the run asks its teacher."""
    run, latent = inputs["run"].options, latents.latent_shape(inputs["latents"])
    net = base.net_facts(run.model, latent, qk_norm=run.qk_norm)
    section = train.section(options.weights, options.ema_decay, inputs["run"])
    found: dict[str, Any] = {"shape": net, "section": section, "interpolant": run.interpolant}
    if "teacher" in inputs:
        shape, qk_norm = train.teacher_net(inputs["teacher"])
        found["teacher_shape"] = base.net_facts(shape, latent, qk_norm=qk_norm)
        found["guided"] = {"block": run.alignment.teacher_block, "guidance": run.alignment.guidance}
    return found


def cost(options: Options, inputs: Inputs, wants: tuple[int, ...]) -> Cost:
    """Passes of all rows at every t, with the label for pictures and without for probes, and through the teacher."""
    run, latent = inputs["run"].options, latents.latent_shape(inputs["latents"])
    held_out = max(options.num_images, options.probe.num_test)
    rows = held_out + options.probe.num_train + options.probe.num_test
    flops = rows * sizes.forward_flops(run.model, latent)
    flops += options.num_images * autoencoder.decode_flops(inputs["autoencoder"])
    if "teacher" in inputs:
        shape, _ = train.teacher_net(inputs["teacher"])
        flops += held_out * sizes.teacher_flops(shape, latent, block=run.alignment.teacher_block)
    return Cost(flops=flops * len(options.times) * len(wants), bytes=float(_bytes(options, inputs) * len(wants)))


def _bytes(options: Options, inputs: Inputs) -> int:
    """Pictures: the images at every t and as they are, and the tokens of every block (and the teacher's two)."""
    picture, model = inputs["images"], inputs["run"].options.model
    latent = latents.latent_shape(inputs["latents"])
    blocks = model.depth if isinstance(options.blocks, str) else len(options.blocks)
    tokens = 3 * sizes.num_tokens(model, latent) * (blocks + (2 if "teacher" in inputs else 0))
    pixels: int = images.source_of(picture).channels * picture.options.resolution**2
    return options.num_images * (pixels + len(options.times) * (pixels + tokens))
