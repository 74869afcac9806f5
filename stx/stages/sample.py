"""sample: images from the milestones of runs. One stage for each run (`runs` fans out), with one part a milestone."""

from typing import Annotated, Any

from pydantic import Field, PlainValidator

from stx import sizes, times
from stx.config.schema import (
    Many,
    Positive,
    Problem,
    StageOptions,
    Window,
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
from stx.stages import autoencoder, base, freeze, images, latents, train
from stx.stages.base import Bound, Inputs

RECIPE = 2  # 2: steps on an edge of the guidance interval are inside it, whatever rounding says
job = base.job
layouts = base.row_layouts
FEW = 8  # enough for every metric


def milestones_asked(value: Any) -> str | tuple[int, ...]:
    """all, last, or steps of the run, ascending."""
    if value in ("all", "last"):
        word: str = value
        return word
    if isinstance(value, list | tuple) and value and all(freeze.step_or_last(step) != "last" for step in value):
        return tuple(sorted(set(value)))
    raise refusal("must be all, last, or a list of milestones of the run (in steps)")


class Sampler(Group):
    """Guidance 1 is none; another one acts where t is inside `interval`. `last_step` is the sde's, from that t to 0."""

    solver: Annotated[str, choice(*times.SOLVERS)] = science("euler")
    steps: Positive = science(25)
    last_step: float = science(times.LAST_STEP, neutral=times.LAST_STEP, gt=0, lt=1)
    guidance: float = science(1.0, ge=0)
    interval: Window = science((0.0, 1.0))


class Options(StageOptions):
    """Rows are sampled and decoded in chunks of `batch`."""

    runs: Many[str] = fan_out("train", singular="run")
    at: Annotated[str | tuple[int, ...], PlainValidator(milestones_asked)] = goal("all")
    num_samples: Annotated[int, Field(gt=0)] = science()
    labels: Annotated[str, choice("balanced", "random")] = science("balanced")
    batch: Positive = science(100)
    weights: Annotated[str, choice("ema", "raw")] = science("ema")
    ema_decay: float | None = science(None, neutral=None)
    sampler: Sampler = group(Sampler)


def derived(inputs: Inputs) -> Inputs:
    """The latents (scale, classes) and the decoder are those of the run."""
    below = inputs["run"].inputs["latents"]
    return {"latents": below, "autoencoder": below.inputs["autoencoder"]}


def check(options: Options, inputs: Inputs) -> list[Problem]:
    """The milestones and the weights are the run's, and the sampler's options belong to its solver."""
    run = inputs["run"]
    found = check_milestones(options.at, run) + train.check_weights(options.weights, options.ema_decay, run)
    return found + check_sampler(options.sampler)


def check_sampler(sampler: Sampler) -> list[Problem]:
    """Only the sde has a last step of its own, and so two steps at least; an interval needs guidance (1 is one, as a
    point of a sweep).
    """
    if "interval" in sampler.model_fields_set and "guidance" not in sampler.model_fields_set:
        what = "an interval says where guidance acts, and there is none"
        return [Problem(("sampler", "interval"), what, "give guidance, for example 4")]
    if sampler.solver == "sde" and sampler.steps < 2:
        return [Problem(("sampler", "steps"), "the sde needs at least 2: one to last_step and one from there to 0")]
    if sampler.solver != "sde" and "last_step" in sampler.model_fields_set:
        what = f"{sampler.solver} goes to 0 in equal steps; last_step belongs to the solver sde"
        return [Problem(("sampler", "last_step"), what, "remove it, or choose solver: sde")]
    return []


def passes(sampler: Sampler) -> int:
    """Rows that the network sees for one sample: one a call, two where guidance acts."""
    calls = times.call_times(sampler.solver, steps=sampler.steps, last_step=sampler.last_step)
    return len(calls) + (sum(times.inside(t, sampler.interval) for t in calls) if sampler.guidance != 1 else 0)


def check_milestones(at: str | tuple[int, ...], run: Bound) -> list[Problem]:
    """The steps of `at` that are no milestones of the run."""
    if isinstance(at, str):
        return []
    batch = run.options.global_batch
    foreign = [step for step in at if step * batch not in run.wants]
    return [freeze.milestone_problem(("at",), step, run.wants, batch, run.name) for step in foreign]


def wants(options: Options, inputs: Inputs) -> tuple[int, ...]:
    """One part for each milestone, by the run's images seen."""
    run = inputs["run"]
    if options.at == "all":
        return run.wants
    if options.at == "last":
        return run.wants[-1:]
    return tuple(int(step) * run.options.global_batch for step in options.at)


def smoke(options: Options) -> dict[str, Any]:
    """One chunk of the real size, or a few images where chunks are smaller, in two steps, of the end of the run."""
    count, steps = min(options.num_samples, max(options.batch, FEW)), min(options.sampler.steps, 2)
    return {"at": "last", "num_samples": count, "sampler.steps": steps}


def facts(options: Options, inputs: Inputs) -> dict[str, Any]:
    """The network that is sampled from, which of its weights, and what it was trained on."""
    bound, run = inputs["run"], inputs["run"].options
    net = base.net_facts(run.model, latents.latent_shape(inputs["latents"]), qk_norm=run.qk_norm)
    section = train.section(options.weights, options.ema_decay, bound)
    return {"shape": net, "section": section, "interpolant": run.interpolant}


def cost(options: Options, inputs: Inputs, wants: tuple[int, ...]) -> Cost:
    """The network's passes, and the decoder."""
    latent, model, decoder = latents.latent_shape(inputs["latents"]), inputs["run"].options.model, inputs["autoencoder"]
    one = passes(options.sampler) * sizes.forward_flops(model, latent) + autoencoder.decode_flops(decoder)
    picture = decoder.inputs["images"]
    pixels = images.source_of(picture).channels * picture.options.resolution**2
    rows = options.num_samples * len(wants)
    return Cost(flops=rows * one, bytes=float(rows * pixels), flops_per_image=one)
