"""The graph as the state machine needs it: one vertex per key, edges by number, in the order in which stages are
started.

An input is fixed (an artifact, or one result of a growing stage, or all that is wanted of one) or a stream: a growing
consumer (sample, evaluate, inspect) takes the results of a growing input one by one, as they are published.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from stx.spec import GROWING, Graph, Input, Node


@dataclass(frozen=True)
class Fixed:
    """An input that must be there before the stage starts: the whole of vertex `index`, or its result at `images`."""

    index: int
    images: int | None


@dataclass(frozen=True)
class Vertex:
    """One key. `names` are all the nodes that bear it; `wants` is the union of what they want."""

    node: Node
    names: tuple[str, ...]
    wants: tuple[int, ...]
    fixed: tuple[Fixed, ...]
    streams: tuple[int, ...]
    dependents: tuple[int, ...]

    @property
    def key(self) -> str:
        """The stage's key."""
        return self.node.key


@dataclass(frozen=True)
class Topology:
    """All vertices by descending priority; `order` lists them inputs first; `index` finds a key."""

    experiment: str
    vertices: tuple[Vertex, ...]
    order: tuple[int, ...]
    index: Mapping[str, int]

    @classmethod
    def of(cls, graph: Graph) -> "Topology":
        """The topology of a planned graph."""
        by_key: dict[str, list[Node]] = {}
        for node in graph.nodes:
            by_key.setdefault(node.key, []).append(node)
        inputs_first = list(by_key)
        ranked = sorted(inputs_first, key=lambda key: -max(node.priority for node in by_key[key]))
        index = {key: place for place, key in enumerate(ranked)}
        dependents: dict[str, list[int]] = {key: [] for key in ranked}
        for key in ranked:
            for source in {value.key for value in by_key[key][0].spec.inputs.values()}:
                dependents[source].append(index[key])
        vertices = tuple(_vertex(by_key[key], index=index, dependents=dependents[key]) for key in ranked)
        return cls(graph.experiment, vertices, tuple(index[key] for key in inputs_first), index)


def _vertex(nodes: list[Node], *, index: Mapping[str, int], dependents: list[int]) -> Vertex:
    first = nodes[0]
    inputs = first.spec.inputs.values()
    return Vertex(
        node=first,
        names=tuple(node.name for node in nodes),
        wants=tuple(sorted({images for node in nodes for images in node.wants})),
        fixed=tuple(Fixed(index[value.key], value.images) for value in inputs if not _is_stream(first, value)),
        streams=tuple(index[value.key] for value in inputs if _is_stream(first, value)),
        dependents=tuple(sorted(dependents)),
    )


def _is_stream(node: Node, value: Input) -> bool:
    return node.grows and value.kind in GROWING and value.images is None
