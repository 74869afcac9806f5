"""features: the teacher's hidden states for `draws` noisings of each latent in the window, for all runs of a sweep."""

from typing import Annotated, Any

from stx import sizes
from stx.config.schema import Positive, Problem, StageOptions, Window, choice, input_, science
from stx.sizes import LatentShape, SitShape
from stx.spec import Cost
from stx.stages import base, latents, train
from stx.stages.base import Inputs
from stx.times import DISTRIBUTIONS

RECIPE = 1
job = base.job
layouts = base.row_layouts
VALUE_BYTES = {"bf16": 2, "fp32": 4}


class Options(StageOptions):
    """Rows (samples x draws) are computed in chunks of `batch`; a shard holds `shard` samples."""

    teacher: str = input_("freeze")
    latents: str = input_("latents")
    teacher_block: Positive = science()
    window: Window = science((0.4, 0.7))
    draws: Positive = science(4)
    dtype: Annotated[str, choice(*VALUE_BYTES)] = science("bf16")
    t_distribution: Annotated[str, choice(*DISTRIBUTIONS)] = science("uniform")
    batch: Positive = science(64)
    shard: Positive = science(512)


def check(options: Options, inputs: Inputs) -> list[Problem]:
    """The block exists, the teacher knows these latents, shards hold whole chunks."""
    teacher, (shape, _) = inputs["teacher"], train.teacher_net(inputs["teacher"])
    found = base.check_shards(options.batch, options.shard, rows=options.draws)
    if options.teacher_block > shape.depth:
        what = f"the teacher {shape.name} has {shape.depth} blocks, so teacher_block must be in 1..{shape.depth}"
        found.append(Problem(("teacher_block",), what))
    theirs, latent = train.latents_of(teacher), latents.latent_shape(inputs["latents"])
    if theirs is not None and theirs.key != inputs["latents"].key:
        differ = ", ".join(base.differing(theirs, inputs["latents"]))
        what = f"the teacher {teacher.name} was trained on {theirs.name}, not on {inputs['latents'].name}"
        hint = f"give latents: {theirs.name}, or a teacher of {inputs['latents'].name}; they differ in {differ}"
        found.append(Problem(("latents",), what, hint))
    elif latent.size % shape.patch:
        found.append(Problem(("teacher",), f"its patches of {shape.patch} do not divide latents of {latent.size}"))
    return found


def facts(options: Options, inputs: Inputs) -> dict[str, Any]:
    """The teacher's network on these latents, and what it was trained on."""
    shape, qk_norm = train.teacher_net(inputs["teacher"])
    net = base.net_facts(shape, latents.latent_shape(inputs["latents"]), qk_norm=qk_norm)
    return {"shape": net, "interpolant": train.interpolant_of(inputs["teacher"])}


def cost(options: Options, inputs: Inputs, wants: tuple[int, ...]) -> Cost:
    """Both passes up to the block, for every draw of every latent."""
    shape, latent = train.teacher_net(inputs["teacher"])[0], latents.latent_shape(inputs["latents"])
    rows = latents.num_samples(inputs["latents"]) * options.draws
    return price(shape, latent, block=options.teacher_block, rows=rows, dtype=options.dtype)


def price(teacher: SitShape, latent: LatentShape, *, block: int, rows: int, dtype: str) -> Cost:
    """The cost of a cache of `rows`."""
    one = sizes.feature_bytes(
        tokens=sizes.num_tokens(teacher, latent), width=teacher.width, value_bytes=VALUE_BYTES[dtype]
    )
    return Cost(flops=rows * sizes.teacher_flops(teacher, latent, block=block), bytes=rows * one)
