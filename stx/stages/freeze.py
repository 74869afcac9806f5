"""freeze: a teacher. Either one milestone of a run, or a checkpoint file of the user's own under a version word."""

from typing import Annotated, Any

from pydantic import Field, PlainValidator

from stx import sizes
from stx.config.schema import Problem, StageOptions, UserPath, choice, goal, input_, refusal, science, where
from stx.sizes import SitShape
from stx.spec import Cost
from stx.stages import base, latents, train
from stx.stages.base import Inputs
from stx.times import INTERPOLANTS

RECIPE = 1
job = base.job
layouts = base.host_layouts


def step_or_last(value: Any) -> str | int:
    """`last`, or a milestone in steps."""
    if value == "last" or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        step: str | int = value
        return step
    raise refusal("must be last, or a milestone of the run (in steps)")


class Options(StageOptions):
    """`run` with `at` and `weights`, or `checkpoint` with `version`, `model`, `qk_norm` and `interpolant`."""

    run: str | None = input_("train", default=None)
    at: Annotated[str | int, PlainValidator(step_or_last)] = goal("last")
    weights: Annotated[str, choice("raw", "ema")] = science("raw")
    ema_decay: float | None = science(None, neutral=None)
    checkpoint: UserPath | None = where(None)
    version: Annotated[str, Field(min_length=1)] | None = science(None, neutral=None)
    model: Annotated[SitShape | None, PlainValidator(train.model_shape)] = science(None, neutral=None)
    qk_norm: bool = science(False)
    interpolant: Annotated[str, choice(*INTERPOLANTS)] = science("linear", neutral="linear")


OF_A_FILE = ("checkpoint", "version", "model")


def check(options: Options, inputs: Inputs) -> list[Problem]:
    """Exactly one of the two forms, and the milestone is one of the run's."""
    if options.run is None:
        return _check_file(options)
    found = [
        Problem((name,), f"{name} belongs to a checkpoint file; this teacher is frozen from {options.run}")
        for name in (*OF_A_FILE, "qk_norm", "interpolant")
        if name in options.model_fields_set
    ]
    run = inputs["run"]
    if not isinstance(options.at, str) and options.at * run.options.global_batch not in run.wants:
        found.append(milestone_problem(("at",), options.at, run.wants, run.options.global_batch, run.name))
    return found + train.check_weights(options.weights, options.ema_decay, run)


def _check_file(options: Options) -> list[Problem]:
    missing = [name for name in OF_A_FILE if getattr(options, name) is None]
    if len(missing) == len(OF_A_FILE):
        return [
            Problem(
                (), "a teacher comes from a run or from a checkpoint", "give run, or checkpoint and version and model"
            )
        ]
    given = [name for name in ("at", "weights", "ema_decay") if name in options.model_fields_set]
    return [Problem((), f"a checkpoint file needs {name}") for name in missing] + [
        Problem((name,), f"{name} chooses among the results of a run, a file has none") for name in given
    ]


def milestone_problem(path: tuple[str | int, ...], step: int, wants: tuple[int, ...], batch: int, run: str) -> Problem:
    """`step` is no milestone of the run."""
    known = ", ".join(str(images // batch) for images in wants)
    what = f"step {step} is no milestone of {run}"
    return Problem(path, what, f"its milestones and its end: {known}")


def results(options: Options, inputs: Inputs) -> dict[str, int]:
    """The milestone that is frozen."""
    if "run" not in inputs:
        return {}
    run = inputs["run"]
    return {"run": run.wants[-1] if options.at == "last" else int(options.at) * run.options.global_batch}


def smoke(options: Options) -> dict[str, Any]:
    """A small run has no milestone but its end; a file is what it is."""
    return {} if options.run is None else {"at": "last"}


def facts(options: Options, inputs: Inputs) -> dict[str, Any]:
    """The network; of a file the worker reads it from the tensors."""
    if "run" not in inputs:
        return {}
    run = inputs["run"]
    latent = latents.latent_shape(run.inputs["latents"])
    net = base.net_facts(run.options.model, latent, qk_norm=run.options.qk_norm)
    return {"shape": net, "section": train.section(options.weights, options.ema_decay, run)}


def cost(options: Options, inputs: Inputs, wants: tuple[int, ...]) -> Cost:
    """One copy of the weights."""
    if "run" not in inputs:
        return Cost()
    run = inputs["run"]
    latent = latents.latent_shape(run.inputs["latents"])
    parameters = sizes.sit_parameters(run.options.model, latent, qk_norm=run.options.qk_norm)
    return Cost(bytes=float(parameters * sizes.FLOAT_BYTES))
