"""train: a SiT on latents, with an alignment method; grows along its trajectory, one result a milestone.

Steps and milestones are no part of the key: raising them resumes. Everything that changes the weights at a given
images-seen count is. World size and micro-batch are the cluster file's; every layout of it must divide the batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, TypeVar

from pydantic import Field, PlainValidator

from stx import sizes
from stx.config import schema
from stx.config.alignment import none
from stx.config.alignment.base import (
    AlignmentCost,
    AlignmentOptions,
    Student,
    WindowedOptions,
    module,
    parse_alignment,
)
from stx.config.cluster import Cluster, Layout, StageResources
from stx.config.schema import (
    Milestones,
    Positive,
    Problem,
    StageOptions,
    Two,
    choice,
    goal,
    group,
    input_,
    refusal,
    science,
    where,
)
from stx.config.yaml import flow
from stx.paths import RAW, ema_sections
from stx.sizes import LatentShape, SitShape, parse_model
from stx.spec import Cost, Node
from stx.stages import base, latents
from stx.stages.base import Bound, Inputs, LayoutError
from stx.times import DISTRIBUTIONS, INTERPOLANTS, Distribution

RECIPE = 1
job = base.job
FP32, BF16_AUTOCAST, BF16_WEIGHTS = "fp32", "bf16_autocast", "bf16_weights"
KEPT_CHECKPOINTS = 2


def model_shape(value: Any) -> SitShape:
    """A pydantic validator around sizes.parse_model."""
    try:
        return parse_model(value)
    except ValueError as error:
        raise refusal(str(error)) from error


Model = Annotated[SitShape, PlainValidator(model_shape)]
Share = Annotated[float, Field(ge=0, lt=1)]


def decays(value: Any) -> float | tuple[float, ...]:
    """One decay, or several in a list; a list of one is that one."""
    found = list(value) if isinstance(value, list | tuple) else [value]
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in found)
    if not found or not numbers or not all(0 <= one < 1 for one in found):
        raise refusal("must be a decay, at least 0 and below 1, or a list of them", "for example [0.999, 0.9999]")
    if len(set(found)) < len(found):
        raise refusal("names a decay twice", "an EMA of each decay is kept once")
    return float(found[0]) if len(found) == 1 else tuple(map(float, found))


Decays = Annotated[float | tuple[float, ...], PlainValidator(decays)]


class Options(StageOptions):
    """`order_window` is how many shards are shuffled together; `milestones` are steps."""

    latents: str = input_("latents")
    model: Model = science()
    global_batch: Positive = science()
    precision: Annotated[str, choice(FP32, BF16_AUTOCAST, BF16_WEIGHTS)] = science(BF16_AUTOCAST)
    lr: float = science(1e-4, gt=0)
    betas: Two[Share] = science((0.9, 0.999))
    weight_decay: float = science(0.0, ge=0)
    grad_clip: float = science(1.0, gt=0)
    ema_decay: Decays = science(0.9999)
    label_dropout: Share = science(0.1)
    qk_norm: bool = science(False)
    interpolant: Annotated[str, choice(*INTERPOLANTS)] = science("linear", neutral="linear")
    t_distribution: Annotated[str, choice(*DISTRIBUTIONS)] = science("uniform")
    stratified_t: bool = science(False, neutral=False)
    order_window: Positive = science(16)
    alignment: Annotated[AlignmentOptions, PlainValidator(parse_alignment)] = group(lambda: none.Options(method="none"))
    steps: Positive = goal()
    milestones: Milestones = goal(())
    log_every: Positive = where(50)


def check(options: Options, inputs: Inputs) -> list[Problem]:
    """Milestones are within the run, patches divide the latent, blocks exist, and the cache was made for this run."""
    found, latent = _check_goal(options), latents.latent_shape(inputs["latents"])
    if latent.size % options.model.patch:
        what = f"patches of {options.model.patch} do not divide latents of {latent.size}x{latent.size}"
        found.append(Problem(("model",), what))
    teacher = inputs.get("alignment.teacher")
    if isinstance(options.alignment, WindowedOptions):
        found += module(options.alignment.method).check(
            options.alignment, student=_student(options, latent), teacher=_teacher_shape(inputs)
        )
    if teacher is not None:
        found += _check_same_latents(inputs, teacher) + _check_same_interpolant(options, teacher)
    if "alignment.features" in inputs:
        found += _check_cache(options, inputs)
    return found


def wants(options: Options, inputs: Inputs) -> tuple[int, ...]:
    """Milestones and the end, in images seen."""
    return tuple(step * options.global_batch for step in sorted({*options.milestones, options.steps}))


def smoke(options: Options) -> dict[str, Any]:
    """Two steps, kept at their end."""
    return {"steps": 2, "milestones": []}


def facts(options: Options, inputs: Inputs) -> dict[str, Any]:
    """The networks, for the worker's check on the meta device, and what the bill needs."""
    latent = latents.latent_shape(inputs["latents"])
    found = {
        "shape": base.net_facts(options.model, latent, qk_norm=options.qk_norm),
        "num_samples": latents.num_samples(inputs["latents"]),
    }
    teacher = inputs.get("alignment.teacher")
    if teacher is not None:
        shape, qk_norm = teacher_net(teacher)
        found["teacher_shape"] = base.net_facts(shape, latent, qk_norm=qk_norm)
        teacher_flops = alignment_cost(options, inputs).teacher_flops_per_image
        found["teacher_flops"] = Cost(flops_per_image=teacher_flops, stop_images=_stop_images(options)).until(
            options.steps * options.global_batch
        )
    return found


def cost(options: Options, inputs: Inputs, wants: tuple[int, ...]) -> Cost:
    """The backbone and the method, forward and backward, up to the last milestone."""
    latent, method = latents.latent_shape(inputs["latents"]), alignment_cost(options, inputs)
    plain = sizes.train_flops(options.model, latent)
    parameters = sizes.sit_parameters(options.model, latent, qk_norm=options.qk_norm) + method.parameters
    emas = len(ema_sections(options.ema_decay))
    kept = sizes.training_bytes(parameters, checkpoints=KEPT_CHECKPOINTS, milestones=len(wants), emas=emas)
    cost = Cost(
        bytes=kept,
        flops_per_image=plain + method.flops_per_image,
        stop_images=_stop_images(options),
        flops_per_image_after_stop=plain,
    )
    return replace(cost, flops=cost.until(max(wants)))


def _stop_images(options: Options) -> int | None:
    """The images-seen count from which on alignment no longer acts."""
    step = options.alignment.stop_step if isinstance(options.alignment, WindowedOptions) else None
    return None if step is None else step * options.global_batch


def alignment_cost(options: Options, inputs: Inputs) -> AlignmentCost:
    """What the method adds to one image."""
    price: AlignmentCost = module(options.alignment.method).cost(
        options.alignment,
        student=_student(options, latents.latent_shape(inputs["latents"])),
        teacher=_teacher_shape(inputs),
        cached="alignment.features" in inputs,
    )
    return price


def layouts(node: Node, cluster: Cluster) -> tuple[dict[str, Any], ...]:
    """Every layout of the cluster file, with its share of the global batch; LayoutError if one of them has no such."""
    resources, science = cluster.resources("train"), node.spec.science
    made, faults = [], []
    for number, one in enumerate(base.layouts_of(resources)):
        micro_batch = one.micro_batch or max(1, science["global_batch"] // one.ranks)
        if science["global_batch"] % (one.ranks * micro_batch):
            faults.append(_indivisible(one, science["global_batch"], place=base.place_of(number, resources)))
        made.append(
            base.layout_of(one, resources)
            | {
                "micro_batch": micro_batch,
                "accumulation": science["global_batch"] // (one.ranks * micro_batch),
                "zero_stage": _own(one.zero_stage, resources.zero_stage),
                "activation_checkpointing": _own(one.activation_checkpointing, resources.activation_checkpointing),
                "compile": resources.compile,
            }
        )
    if faults:
        raise LayoutError(faults, option="global_batch")
    if science["precision"] == BF16_WEIGHTS:
        _check_zero(made, resources)
    return tuple(made)


Own = TypeVar("Own")


def _own(own: Own | None, shared: Own) -> Own:
    return shared if own is None else own


def _indivisible(chosen: Layout, global_batch: int, *, place: tuple[str | int, ...]) -> Problem:
    rows = f" x micro_batch {chosen.micro_batch}" if chosen.micro_batch else ""
    unit = chosen.ranks * (chosen.micro_batch or 1)
    divisors = [count for count in range(1, global_batch + 1) if global_batch % count == 0]
    near = [*[one for one in divisors if one < unit][-1:], *[one for one in divisors if one > unit][:1]]
    return Problem(
        place,
        f"{chosen.nodes} node(s) x {chosen.ranks_per_node} ranks{rows} = {unit} does not divide the global batch",
        f"every layout must divide it, because any may be used; a product of {' or '.join(map(str, near))} would",
    )


def _check_zero(made: Sequence[Mapping[str, Any]], resources: StageResources) -> None:
    faults = []
    for number, one in enumerate(made):
        if one["zero_stage"] == 0:
            own = base.layouts_of(resources)[number].zero_stage is not None
            faults.append(
                Problem(
                    (*base.place_of(number, resources), "zero_stage") if own else ("zero_stage",),
                    "ZeRO 0 does not go with bf16_weights: DeepSpeed would take a step that nobody asked for",
                    "zero_stage 1, 2 or 3; or precision bf16_autocast or fp32",
                )
            )
    if faults:
        raise LayoutError(faults, option="precision")


def check_weights(weights: str, ema_decay: float | None, run: Bound) -> list[Problem]:
    """A consumer's `weights` and `ema_decay` name weights that the run keeps."""
    if ema_decay is None:
        return []
    kept = ", ".join(map(str, ema_sections(run.options.ema_decay)))
    if weights == RAW:
        return [Problem(("ema_decay",), "raw weights have no decay", f"weights: ema; the run {run.name} keeps {kept}")]
    if ema_decay not in ema_sections(run.options.ema_decay):
        return [Problem(("ema_decay",), f"the run {run.name} keeps no EMA of this decay", f"valid: {kept}")]
    return []


def decay_of(weights: str, ema_decay: float | None, run: Bound) -> float | None:
    """The decay of the weights that a consumer chooses: the run's first where it names none; None for raw ones."""
    if weights == RAW:
        return None
    return next(iter(ema_sections(run.options.ema_decay))) if ema_decay is None else ema_decay


def section(weights: str, ema_decay: float | None, run: Bound) -> str:
    """What the names of these weights begin with in the run's milestones."""
    decay = decay_of(weights, ema_decay, run)
    return RAW if decay is None else ema_sections(run.options.ema_decay)[decay]


def teacher_net(teacher: Bound) -> tuple[SitShape, bool]:
    """Shape and qk_norm of a freeze stage's network."""
    options = teacher.options if "run" not in teacher.inputs else teacher.inputs["run"].options
    return options.model, options.qk_norm


def interpolant_of(teacher: Bound) -> str:
    """What a freeze stage's network was trained on."""
    options = teacher.options if "run" not in teacher.inputs else teacher.inputs["run"].options
    word: str = options.interpolant
    return word


def latents_of(teacher: Bound) -> Bound | None:
    """The latents that a teacher was trained on; None for a checkpoint of the user's own."""
    run = teacher.inputs.get("run")
    return None if run is None else run.inputs["latents"]


def _student(options: Options, latent: LatentShape) -> Student:
    return Student(options.model, latent, Distribution(options.t_distribution, options.interpolant))


def _teacher_shape(inputs: Inputs) -> SitShape | None:
    teacher = inputs.get("alignment.teacher")
    return None if teacher is None else teacher_net(teacher)[0]


def _check_goal(options: Options) -> list[Problem]:
    late = [step for step in options.milestones if step > options.steps]
    if not late:
        return []
    what = f"milestone {late[0]} is beyond the run's {options.steps} steps"
    return [Problem(("milestones",), what, "raise steps (that resumes the run), or remove the milestone")]


def _check_same_latents(inputs: Inputs, teacher: Bound) -> list[Problem]:
    theirs = latents_of(teacher)
    if theirs is None or theirs.key == inputs["latents"].key:
        return []
    differ = ", ".join(base.differing(theirs, inputs["latents"]))
    what = f"the teacher {teacher.name} was trained on {theirs.name}, this run is on {inputs['latents'].name}"
    hint = f"teacher and student must see the same latents; these differ in {differ}"
    return [Problem(("alignment", "teacher"), what, hint)]


def _check_same_interpolant(options: Options, teacher: Bound) -> list[Problem]:
    theirs = interpolant_of(teacher)
    if theirs == options.interpolant:
        return []
    what = f"the teacher {teacher.name} learned the {theirs} interpolant, this run has the {options.interpolant} one"
    hint = "both must have the same; a checkpoint file says its own with `interpolant` in its freeze stage"
    return [Problem(("alignment", "teacher"), what, hint)]


def _check_cache(options: Options, inputs: Inputs) -> list[Problem]:
    cache, found = inputs["alignment.features"], []
    assert isinstance(options.alignment, WindowedOptions), "only windowed methods have a cache"
    theirs, mine = cache.options, options.alignment
    for name in ("teacher", "latents"):
        given = inputs["latents"] if name == "latents" else inputs["alignment.teacher"]
        if cache.inputs[name].key != given.key:
            what = f"the cache {cache.name} was made with {cache.inputs[name].name}, this run has {given.name}"
            found.append(Problem(("alignment", "features"), what, f"both must have the same {name}"))
    for name, value in (
        ("window", mine.window),
        ("teacher_block", getattr(mine, "teacher_block", None)),
        ("t_distribution", options.t_distribution),
    ):
        if getattr(theirs, name) != value:
            path = (name,) if name == "t_distribution" else ("alignment", name)
            what = f"the cache {cache.name} was made with {name} = {flow(schema.plain(getattr(theirs, name)))}"
            same = f"stages.{cache.stage}.{name}: {flow(schema.plain(value))}"
            hint = f"both must have the same, for example {same}; or remove features (the teacher then runs online)"
            found.append(Problem(path, what, hint))
    return found
