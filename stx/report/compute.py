"""What a milestone cost, all counted that it stands on: planned FLOPs, and measured hours of devices.

    own, up to these images  +  the same for every train stage upstream, at the images it was consumed at
                             +  every teacher, feature cache and program upstream, each key once

Preparation of the data (images, autoencoder, latents, classifier) is the same for every series and is not counted.
Hours of a train stage are those of the lineage that led to the milestone (starts, saves and publishing in it, what a
lost attempt did beyond its last checkpoint not); of the others, those of all their attempts.
"""

from collections.abc import Mapping

from stx.report.facts import StageFacts
from stx.spec import Node

PREPARATION = frozenset({"images", "autoencoder", "latents", "classifier"})


def stands_on(node: Node, *, images: int | None, nodes: Mapping[str, Node]) -> list[tuple[Node, int | None]]:
    """The node and everything upstream that is counted, each key once, with the largest count it is wanted at."""
    found: dict[str, tuple[Node, int | None]] = {}

    def visit(one: Node, count: int | None) -> None:
        if one.spec.kind in PREPARATION:
            return
        before = found.get(one.key, (one, None))[1]
        found[one.key] = (one, count if before is None or count is None else max(count, before))
        for source in one.spec.inputs.values():
            if source.key in nodes:
                visit(nodes[source.key], source.images)

    visit(node, images)
    return list(found.values())


def total_compute(node: Node, *, images: int | None, nodes: Mapping[str, Node]) -> float:
    """FLOPs behind `images` of a run."""
    return sum(
        one.cost.until(count) if one.spec.kind == "train" and count is not None else one.cost.flops
        for one, count in stands_on(node, images=images, nodes=nodes)
    )


def total_hours(
    node: Node, *, images: int, nodes: Mapping[str, Node], stages: Mapping[str, StageFacts], gpus: bool
) -> float | None:
    """Device hours behind `images` of a run; None where a part of it was not recorded."""
    total = 0.0
    for one, count in stands_on(node, images=images, nodes=nodes):
        stage = stages[one.key]
        hours = train_hours(stage, images=count, gpus=gpus) if count is not None else stage.hours(gpus=gpus)
        if hours is None:
            return None
        total += hours
    return total


def train_hours(stage: StageFacts, *, images: int, gpus: bool) -> float | None:
    """Device hours of the lineage up to a milestone. Where the number of devices changed on the way, its seconds are
    split as if speed were proportional to their number.
    """
    artifact = stage.artifacts.get(images)
    info = artifact.info if artifact else {}
    lineage, seconds = info.get("lineage"), info.get("seconds")
    devices = {one.number: one.gpus if gpus else one.cores for one in stage.attempts}
    if not lineage or seconds is None or any(not devices.get(attempt) for _, _, attempt in lineage):
        return None
    total = sum(end - begin for begin, end, _ in lineage)
    weighed = sum((end - begin) / devices[attempt] for begin, end, attempt in lineage)
    hours: float = seconds * total / weighed / 3600
    return hours
