"""What a plan costs: FLOPs, hours, bytes, steps and epochs by stage, and what a teacher costs online and cached.

FLOPs are arithmetic (stx/sizes.py). Hours need a rate: measured on results of the same kind that the store already
has, else the cluster file's flops_per_s, else there are none. They are hours of one allocation, not of the machine:
stages run side by side.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stx.config.cluster import Cluster
from stx.plan.verbs import NOTHING, PlanLine, Seen, Verb
from stx.sizes import LatentShape, SitShape
from stx.spec import Cost, Graph, Node, unique
from stx.stages import base, features


@dataclass(frozen=True)
class BillRow:
    """One stage of the file, all its points: what is left to do of it (`nodes` and `todo` count points)."""

    stage: str
    kind: str
    nodes: int
    todo: int
    flops: float
    bytes: float
    hours: float | None
    images: int
    steps: int
    epochs: float


@dataclass(frozen=True)
class TeacherBill:
    """A teacher's bill for the runs that share it: online in each of them, or once into a cache of `draws` a sample.

    Without a features stage the cache's side is that of one with its default options.
    """

    teacher: str
    runs: int
    cached: bool
    draws: int
    online_flops: float
    cache_flops: float
    cache_bytes: float


@dataclass(frozen=True)
class Bill:
    """Rows in the file's order, their sum, the teachers, and what the hours of each kind are based on."""

    rows: tuple[BillRow, ...]
    total: BillRow
    teachers: tuple[TeacherBill, ...]
    basis: Mapping[str, str]


@dataclass(frozen=True)
class _Rate:
    flops_per_s: float
    basis: str


def bill(
    graph: Graph,
    lines: Sequence[PlanLine],
    cluster: Cluster,
    *,
    seen: Mapping[str, Seen] | None = None,
    ranks: Mapping[str, int] | None = None,
) -> Bill:
    """The bill of what is left to do. Two nodes with one key are paid once. `ranks`: of the layout that is used, by
    kind; the first layout's where nothing is said.
    """
    rates = _rates(graph, cluster, seen or {}, ranks=ranks or {})
    rows = []
    whole = unique(graph.nodes)
    stages: dict[str, list[PlanLine]] = {}
    for line in lines:
        stages.setdefault(line.node.stage, []).append(line)
    for stage, mine in stages.items():
        rows.append(_row(stage, mine, rates=rates, seen=seen or {}, whole=whole))
    hours = None if any(row.hours is None and row.flops for row in rows) else sum(row.hours or 0.0 for row in rows)
    total = BillRow(
        stage="total",
        kind="",
        nodes=sum(row.nodes for row in rows),
        todo=sum(row.todo for row in rows),
        flops=sum(row.flops for row in rows),
        bytes=sum(row.bytes for row in rows),
        hours=hours,
        images=sum(row.images for row in rows),
        steps=sum(row.steps for row in rows),
        epochs=sum(row.epochs for row in rows),
    )
    basis = {kind: rate.basis for kind, rate in rates.items()}
    return Bill(rows=tuple(rows), total=total, teachers=tuple(_teachers(graph)), basis=basis)


def shapes(graph: Graph) -> list[dict[str, Any]]:
    """What `stx.worker check` builds on the meta device: every distinct network with its method, once."""
    found: dict[str, dict[str, Any]] = {}
    for node in graph.nodes:
        if node.spec.kind == "train":
            cached = "alignment.features" in node.spec.inputs
            shape = {
                "shape": node.where["shape"],
                "teacher_shape": node.where.get("teacher_shape"),
                "alignment": node.spec.science["alignment"],
                "cached": cached,
            }
            method = {key: value for key, value in shape["alignment"].items() if key not in ("guidance", "weight")}
            found.setdefault(repr((shape["shape"], shape["teacher_shape"], method, cached)), shape)
    return list(found.values())


def _row(
    stage: str,
    lines: Sequence[PlanLine],
    *,
    rates: Mapping[str, _Rate],
    seen: Mapping[str, Seen],
    whole: dict[str, Node],
) -> BillRow:
    """`whole`: what is not billed yet, by key."""
    kind, flops, size, images, steps, epochs, todo = lines[0].node.spec.kind, 0.0, 0.0, 0, 0, 0.0, 0
    for line in lines:
        if line.verb == Verb.CACHED or line.node.key not in whole:
            continue
        node = whole.pop(line.node.key)
        share = _left(node, seen.get(node.key, NOTHING))
        todo += 1
        flops += node.cost.flops * share
        size += node.cost.bytes * share
        if kind == "train":
            left = round(node.wants[-1] * share)
            images += left
            steps += left // int(node.spec.science["global_batch"])
            epochs += left / node.where["num_samples"]
    rate = rates.get(kind)
    hours = 0.0 if not flops else flops / rate.flops_per_s / 3600.0 if rate else None
    return BillRow(stage, kind, len(lines), todo, flops, size, hours, images, steps, epochs)


def _left(node: Node, seen: Seen) -> float:
    """The share of a node's work that is left."""
    if node.spec.kind == "train":
        return 1.0 - min(max((*seen.checkpoints, 0)), node.wants[-1]) / node.wants[-1]
    if node.grows:
        return sum(images not in seen.results for images in node.wants) / len(node.wants)
    return 1.0


def _rates(graph: Graph, cluster: Cluster, seen: Mapping[str, Seen], *, ranks: Mapping[str, int]) -> dict[str, _Rate]:
    rates: dict[str, _Rate] = {}
    for kind in dict.fromkeys(node.spec.kind for node in graph.nodes):
        given = cluster.resources(kind).flops_per_s
        measured = list(_measured((node for node in graph.nodes if node.spec.kind == kind), seen))
        seconds = sum(s for _, s in measured)
        if seconds > 0 and sum(flops for flops, _ in measured) > 0:
            number = len(measured)
            words = f"measured on {number} finished {kind} stage{'s' if number > 1 else ''} of the store"
            rates[kind] = _Rate(sum(flops for flops, _ in measured) / seconds, words)
        elif given is not None:
            size = ranks.get(kind, base.layouts_of(cluster.resources(kind))[0].ranks)
            rates[kind] = _Rate(given * size, f"flops_per_s of cluster {cluster.name}")
    return rates


def _measured(nodes: Iterable[Node], seen: Mapping[str, Seen]) -> Iterable[tuple[float, float]]:
    """FLOPs and seconds of finished results, each key once."""
    done: set[str] = set()
    for node in nodes:
        results = seen.get(node.key, NOTHING).results
        if not results or node.key in done:
            continue
        done.add(node.key)
        if node.spec.kind == "train":  # seconds of a milestone are those since the first image
            last = max(results.values(), key=lambda made: made.images or 0)
            yield node.cost.until(last.images or 0), last.seconds
        else:
            one = node.cost.flops / max(1, len(node.wants))
            yield sum(one * made.share for made in results.values()), sum(made.seconds for made in results.values())


def _teachers(graph: Graph) -> Iterable[TeacherBill]:
    """Both bills of each teacher that runs align with: those that share teacher, block and draws share a cache."""
    caches = {node.key: node for node in graph.nodes if node.spec.kind == "features"}
    names = {node.key: node.name for node in graph.nodes}
    groups: dict[tuple[str, str], list[Node]] = {}
    for node in graph.nodes:
        teacher = node.spec.inputs.get("alignment.teacher")
        if teacher is not None:
            features_of = node.spec.inputs.get("alignment.features")
            groups.setdefault((teacher.key, features_of.key if features_of else ""), []).append(node)
    for (teacher_key, cache_key), runs in groups.items():
        cache = caches.get(cache_key)
        draws, cost = (cache.spec.science["draws"], cache.cost) if cache else _default_cache(runs[0])
        yield TeacherBill(
            teacher=names[teacher_key],
            runs=len(runs),
            cached=cache is not None,
            draws=draws,
            online_flops=sum(run.where["teacher_flops"] for run in runs),
            cache_flops=cost.flops,
            cache_bytes=cost.bytes,
        )


def _default_cache(run: Node) -> tuple[int, Cost]:
    draws: int = features.Options.model_fields["draws"].default
    net, block = run.where["teacher_shape"], run.spec.science["alignment"]["teacher_block"]
    shape = SitShape(*(net[name] for name in ("depth", "width", "heads", "patch")))
    latent = LatentShape(net["in_channels"], net["input_size"], net["num_classes"])
    dtype = features.Options.model_fields["dtype"].default
    return draws, features.price(shape, latent, block=block, rows=run.where["num_samples"] * draws, dtype=dtype)
