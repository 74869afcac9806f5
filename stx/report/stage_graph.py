"""The experiment's graph, folded by stage: a box per stage of the experiment file, with all points of its sweep."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter

from stx.report import layers
from stx.report.facts import Facts, StageFacts
from stx.report.words import duration

STATES = ("done", "live", "failed", "open")
MAX_NAME = 17


@dataclass(frozen=True)
class Box:
    """One stage: its place, its words, and which part of its width each state takes (state, start, width)."""

    name: str
    shown: str
    words: str
    title: str
    state: str
    x: float
    y: float
    bar: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True)
class Picture:
    """Boxes, and edges as SVG paths."""

    boxes: tuple[Box, ...]
    edges: tuple[str, ...]
    width: float
    height: float
    box_width: float = layers.WIDTH
    box_height: float = layers.HEIGHT


def folded(facts: Facts) -> Picture:
    """Draw it, without the edges that a longer way implies."""
    stages = {stage.node.key: stage for stage in facts.stages}
    members: dict[str, dict[str, StageFacts]] = {}
    owner: dict[str, str] = {}
    edges: dict[tuple[str, str], None] = {}
    for node in facts.nodes:
        owner.setdefault(node.key, node.stage)
        members.setdefault(node.stage, {})[node.key] = stages[node.key]
        for source in node.spec.inputs.values():
            if source.key in owner and owner[source.key] != node.stage:
                edges[owner[source.key], node.stage] = None
    drawing = layers.draw(_sorted(members, edges), [edge for edge in edges if edge not in _implied(edges)])
    return Picture(
        boxes=tuple(_box(name, of, drawing.boxes[name]) for name, of in members.items()),
        edges=tuple(drawing.edges.values()),
        width=drawing.width,
        height=drawing.height,
    )


def _box(name: str, members: Mapping[str, StageFacts], corner: tuple[float, float]) -> Box:
    counts = Counter(stage.state for stage in members.values())
    kind = next(iter(members.values())).node.spec.kind
    times = [stage.seconds for stage in members.values() if stage.seconds is not None]
    many = f" x {len(members):,}" if len(members) > 1 else ""
    told = ", ".join(f"{counts[state]:,} {state}" for state in STATES if counts[state])
    bar, start = [], 0.0
    for state in STATES:
        width = layers.WIDTH * counts[state] / len(members)
        bar += [(state, start, width)] if width else []
        start += width
    worst = next(state for state in ("failed", "live", "open", "done") if counts[state])
    return Box(
        name=name,
        shown=name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "\u2026",
        words=f"{kind}{many}" + (f" \u00b7 {duration(sum(times))}" if times else ""),
        title=f"{name}: {kind}, {told}",
        state=worst,
        x=corner[0],
        y=corner[1],
        bar=tuple(bar),
    )


def _sorted(names: Iterable[str], edges: Iterable[tuple[str, str]]) -> list[str]:
    """Sources before their consumers, else as they come."""
    sorter = TopologicalSorter[str](dict.fromkeys(names, ()))
    for source, target in edges:
        sorter.add(target, source)
    return list(sorter.static_order())


def _implied(edges: Mapping[tuple[str, str], None]) -> set[tuple[str, str]]:
    """Edges whose target is reached from their source on a longer way, too."""
    onward: dict[str, set[str]] = {}
    for source, target in edges:
        onward.setdefault(source, set()).add(target)
    reach: dict[str, set[str]] = {}

    def beyond(name: str) -> set[str]:
        if name not in reach:
            reach[name] = set().union(*({after} | beyond(after) for after in onward.get(name, ())))
        return reach[name]

    return {
        (source, target)
        for source, target in edges
        if any(target in beyond(other) for other in onward[source] if other != target)
    }
