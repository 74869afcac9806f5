"""What is exported of an experiment: the curves that stages logged along their surviving lineage, and the scores.

The horizontal axis is images seen everywhere. A stage that was interrupted has one curve: what a later attempt
computed again replaces what an earlier one logged.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stx import records
from stx.paths import SCORES, Store
from stx.report import history
from stx.spec import Graph, Node, unique

NOT_DRAWN = frozenset({"step", "time"})  # the axis in other units


@dataclass(frozen=True)
class Row:
    """Numbers at an images-seen count. `time`: seconds since 1970, of the machine that wrote them."""

    images: int
    time: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class Run:
    """One stage that has numbers: its name in the experiment, its options by dotted path, and its rows by images."""

    name: str
    stage: str
    kind: str
    key: str
    options: Mapping[str, Any]
    rows: tuple[Row, ...]


def runs(store: Store, graph: Graph) -> Iterator[Run]:
    """The stages that have numbers, inputs first; those that share a key once, under the first name."""
    for node in unique(graph.nodes).values():
        rows = _scores(node, store) if node.spec.kind == "evaluate" else _curve(node, store)
        if rows:
            options = dict(_flat(node.spec.science)) | {f"point.{name}": value for name, value in node.point.items()}
            yield Run(node.name, node.stage, node.spec.kind, node.key, options, tuple(rows))


def _curve(node: Node, store: Store) -> list[Row]:
    points = history.curve(store.stage(node.spec.kind, node.key))
    return [
        Row(
            images=point.images,
            time=point.values.get("time", 0.0),
            values={f"{node.spec.kind}/{name}": value for name, value in point.values.items() if name not in NOT_DRAWN},
        )
        for point in points
    ]


def _scores(node: Node, store: Store) -> list[Row]:
    """Of the milestones that this experiment wants."""
    stage = store.stage(node.spec.kind, node.key)
    rows = []
    for images in node.wants:
        part = stage.part(node.spec.kind, images)
        if part.artifact.exists():
            record = records.read(part.path / SCORES)
            with records.understood(part.path / SCORES):
                values = {f"scores/{name}": float(value) for name, value in record["scores"].items()}
            rows.append(Row(images, part.artifact.stat().st_mtime, values))
    return rows


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{name}.")
        else:
            yield prefix + name, item
