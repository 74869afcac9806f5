"""What a stage kind is on the control side, and what all kinds share.

A kind is one file, stx/stages/NAME.py (its computation is stx/worker/NAME.py), with
    RECIPE, Options             the version of its computation; its options
    check(options, inputs)      what arithmetic can refuse
    cost(options, inputs, wants)
    layouts(node, cluster)      how its work may be spread, in order of preference
    job(node, ...)              its job in one of these layouts
and, where it differs from `Kind`'s defaults,
    derived(inputs)             inputs that follow from the named ones
    results(options, inputs)    which result of a growing input is consumed (images seen); the others are consumed whole
    wants(options, inputs)      images-seen counts, of growing kinds
    facts(options, inputs)      what is known at plan time and the worker needs; goes into `where`
    smoke(options)              options, by dotted path, that make the stage small: two steps, a few images
"""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.spec import JobSpec, Resources
from stx import named
from stx.config import schema
from stx.config.cluster import Cluster, Layout, StageResources
from stx.config.schema import Problem, StageOptions
from stx.errors import PlanError
from stx.sizes import LatentShape, SitShape
from stx.spec import Cost, Node

PACKAGE = "stx.stages"
SEVERAL_RANKS = ("train", "latents", "features", "sample")


class LayoutError(PlanError):
    """What the cluster file gives a kind, at paths below stages.KIND, does not go with a stage, because of `option`."""

    def __init__(self, faults: Sequence[Problem], *, option: str) -> None:
        super().__init__(faults[0].what, hint=faults[0].hint)
        self.faults = tuple(faults)
        self.option = option


@dataclass(frozen=True, eq=False)
class Bound:
    """A planned stage as its consumers see it. `wants` are its images-seen counts, ascending."""

    name: str
    kind: str
    key: str
    options: Any
    inputs: Mapping[str, "Bound"]
    wants: tuple[int, ...]

    @property
    def stage(self) -> str:
        """Its name in the file, without its sweep point."""
        return self.name.partition(":")[0]


Inputs = Mapping[str, Bound]


def differing(one: Bound, other: Bound) -> tuple[str, ...]:
    """What makes two stages of one kind different: the inputs that differ, else the options of their keys that do."""
    inputs = sorted(
        name for name in {*one.inputs, *other.inputs} if _key(one.inputs.get(name)) != _key(other.inputs.get(name))
    )
    mine, theirs = schema.science_of(one.options), schema.science_of(other.options)
    return tuple(inputs or sorted(name for name in {*mine, *theirs} if mine.get(name) != theirs.get(name)))


def _key(bound: Bound | None) -> str | None:
    return None if bound is None else bound.key


def no_derived(inputs: Inputs) -> Inputs:
    """Nothing follows from the named inputs."""
    return {}


def no_results(options: StageOptions, inputs: Inputs) -> Mapping[str, int]:
    """Inputs are consumed whole."""
    return {}


def no_wants(options: StageOptions, inputs: Inputs) -> tuple[int, ...]:
    """The kind does not grow."""
    return ()


def no_facts(options: StageOptions, inputs: Inputs) -> Mapping[str, Any]:
    """The options say all."""
    return {}


def no_smoke(options: StageOptions) -> Mapping[str, Any]:
    """The stage is small when its inputs are."""
    return {}


@dataclass(frozen=True)
class Kind:
    """A stage kind's functions, with the defaults filled in."""

    name: str
    recipe: int
    options: type[StageOptions]
    check: Callable[[Any, Inputs], list[Problem]]
    cost: Callable[[Any, Inputs, tuple[int, ...]], Cost]
    layouts: Callable[[Node, Cluster], tuple[dict[str, Any], ...]]
    derived: Callable[[Inputs], Inputs]
    results: Callable[[Any, Inputs], Mapping[str, int]]
    wants: Callable[[Any, Inputs], tuple[int, ...]]
    facts: Callable[[Any, Inputs], Mapping[str, Any]]
    smoke: Callable[[Any], Mapping[str, Any]]


@functools.cache
def kind_named(name: str) -> Kind:
    """The kind in stx/stages/NAME.py; an unknown name is a ConfigError with the known ones."""
    module = named.load(PACKAGE, name)
    return Kind(
        name=name,
        recipe=module.RECIPE,
        options=module.Options,
        check=module.check,
        cost=module.cost,
        layouts=module.layouts,
        derived=getattr(module, "derived", no_derived),
        results=getattr(module, "results", no_results),
        wants=getattr(module, "wants", no_wants),
        facts=getattr(module, "facts", no_facts),
        smoke=getattr(module, "smoke", no_smoke),
    )


def row_layouts(node: Node, cluster: Cluster) -> tuple[dict[str, Any], ...]:
    """Any number of ranks, which share the stage's rows (stx/worker/units.py)."""
    resources = cluster.resources(node.spec.kind)
    return tuple(layout_of(one, resources) for one in layouts_of(resources))


def layouts(node: Node, cluster: Cluster) -> tuple[dict[str, Any], ...]:
    """One rank; what a kind asks for that cannot share its work. PlanError if the cluster file gives it more."""
    kind = node.spec.kind
    planned = row_layouts(node, cluster)
    for number, one in enumerate(planned):
        if one["ranks"] != 1:
            raise PlanError(
                f"{kind} stages run on one rank, these are {one['ranks']}",
                where=cluster.place(kind, place_of(number, cluster.resources(kind))),
                hint=f"only {', '.join(SEVERAL_RANKS)} stages may have more; give theirs under stages.KIND",
            )
    return planned


def host_layouts(node: Node, cluster: Cluster) -> tuple[dict[str, Any], ...]:
    """The same for kinds that compute on the CPU only."""
    return tuple(one | {"gpus_per_rank": 0} for one in layouts(node, cluster))


def layouts_of(resources: StageResources) -> tuple[Layout, ...]:
    """The layouts of a kind, in order of preference."""
    return resources.layouts or (Layout(ranks_per_node=resources.ranks),)


def place_of(number: int, resources: StageResources) -> tuple[str | int, ...]:
    """Where a layout of `layouts_of` stands, below stages.KIND."""
    return ("ranks",) if resources.layouts is None else ("layouts", number)


def layout_of(chosen: Layout, resources: StageResources) -> dict[str, Any]:
    """The JSON that an attempt records and its job is made from."""
    cpus, gpus = chosen.cpus_per_rank, chosen.gpus_per_rank
    return {
        "nodes": chosen.nodes,
        "ranks_per_node": chosen.ranks_per_node,
        "ranks": chosen.ranks,
        "cpus_per_rank": resources.cpus_per_rank if cpus is None else cpus,
        "gpus_per_rank": resources.gpus_per_rank if gpus is None else gpus,
        "noise_on": resources.noise_on,
    }


def job(
    node: Node, *, cluster: Cluster, layout: Mapping[str, Any], tag: str, attempt_dir: Path, python: str, code: Path
) -> JobSpec:
    """The job of one attempt: `python -m stx.worker run <attempt dir>` on every rank, from the store's sources."""
    kind = node.spec.kind
    asked = cluster.scheduler(kind)
    searched = [str(code), *filter(None, [os.environ.get("PYTHONPATH")])]
    return JobSpec(
        tag=tag,
        argv=(asked.python or python, "-m", "stx.worker", "run", str(attempt_dir)),
        attempt_dir=attempt_dir,
        cwd=attempt_dir,
        resources=request(layout, cluster.resources(kind), partition=asked.partition),
        env={"PYTHONPATH": os.pathsep.join(searched)},
        stop_lead_s=cluster.stop_lead_s,
        start_limit_s=cluster.hang_after_s.start,
        scheduler=asked.model_dump(exclude={"partition"}, exclude_defaults=True),
    )


def request(layout: Mapping[str, Any], resources: StageResources, *, partition: str | None = None) -> Resources:
    """What a launcher is asked for."""
    return Resources(
        nodes=layout["nodes"],
        ranks_per_node=layout["ranks_per_node"],
        cpus_per_rank=layout["cpus_per_rank"],
        gpus_per_rank=layout["gpus_per_rank"],
        mem_gb=resources.mem_gb,
        time_s=resources.time,
        partition=partition,
    )


def net_facts(shape: SitShape, latent: LatentShape, *, qk_norm: bool) -> dict[str, Any]:
    """A SiT as JSON: what a worker needs to build it."""
    sizes = {"in_channels": latent.channels, "input_size": latent.size, "num_classes": latent.num_classes}
    return {**vars(shape), **sizes, "qk_norm": qk_norm}


def check_shards(batch: int, shard: int, *, name: str = "shard", rows: int = 1) -> list[Problem]:
    """Shards hold whole chunks: a chunk of `batch` rows is computed at once and never split."""
    if shard * rows % batch == 0:
        return []
    held = f"{shard} x {rows} rows" if rows > 1 else f"{shard} rows"
    return [Problem((name,), f"a shard of {held} does not hold whole chunks of batch = {batch} rows")]
