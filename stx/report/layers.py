"""A small layered drawing of a directed graph (Sugiyama's steps): layers by longest path, dummies in long edges, fewer
crossings by barycentres, then places that keep the order and pull neighbours together. Pure, deterministic.
"""

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

SWEEPS = 8
WIDTH, HEIGHT = 142.0, 50.0
COLUMN, ROW, LANE = 170.0, 66.0, 22.0  # pitch of the layers, of boxes, and of edges that pass by

_Vertex = Hashable  # a name, or (source, target, layer) of a dummy


@dataclass(frozen=True)
class Drawing:
    """Left upper corners of the boxes, WIDTH x HEIGHT each, and edges as SVG paths; all inside width x height."""

    boxes: Mapping[str, tuple[float, float]]
    edges: Mapping[tuple[str, str], str]
    width: float
    height: float


def draw(names: Sequence[str], edges: Iterable[tuple[str, str]]) -> Drawing:
    """Lay out `names` (sources before their consumers) from left to right."""
    edges = list(dict.fromkeys(edge for edge in edges if edge[0] != edge[1]))
    layer = _layers(names, edges)
    chains = {edge: _chain(edge, layer) for edge in edges}
    rows: list[list[_Vertex]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for name in names:
        rows[layer[name]].append(name)
    for edge, chain in chains.items():
        for step, dummy in enumerate(chain[1:-1], start=layer[edge[0]] + 1):
            rows[step].append(dummy)
    neighbours = _neighbours(chains.values())
    _order(rows, neighbours)
    y = _places(rows, neighbours)
    top = min(y.values(), default=0.0) - HEIGHT / 2 - 1
    boxes = {name: (layer[name] * COLUMN + 1, y[name] - HEIGHT / 2 - top) for name in names}
    paths = {edge: _path([y[v] - top for v in chain], layer[edge[0]]) for edge, chain in chains.items()}
    height = max((place - top + HEIGHT / 2 for place in y.values()), default=0.0) + 1
    return Drawing(boxes, paths, width=max(1, len(rows)) * COLUMN - (COLUMN - WIDTH) + 2, height=height)


def _layers(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    sources: dict[str, list[str]] = {}
    for source, target in edges:
        sources.setdefault(target, []).append(source)
    layer: dict[str, int] = {}
    for name in names:
        layer[name] = max((layer[source] + 1 for source in sources.get(name, ())), default=0)
    return layer


def _chain(edge: tuple[str, str], layer: Mapping[str, int]) -> list[_Vertex]:
    between = range(layer[edge[0]] + 1, layer[edge[1]])
    return [edge[0], *((*edge, step) for step in between), edge[1]]


def _neighbours(
    chains: Iterable[Sequence[_Vertex]],
) -> tuple[dict[_Vertex, list[_Vertex]], dict[_Vertex, list[_Vertex]]]:
    """(those one layer to the left, those one layer to the right)."""
    left: dict[_Vertex, list[_Vertex]] = {}
    right: dict[_Vertex, list[_Vertex]] = {}
    for chain in chains:
        for one, other in itertools.pairwise(chain):
            right.setdefault(one, []).append(other)
            left.setdefault(other, []).append(one)
    return left, right


def _order(rows: list[list[_Vertex]], neighbours: tuple[dict[_Vertex, list[_Vertex]], ...]) -> None:
    for sweep in range(SWEEPS):
        towards = neighbours[sweep % 2]
        passes = rows if sweep % 2 == 0 else rows[::-1]
        for fixed, moved in itertools.pairwise(passes):
            rank = {vertex: float(place) for place, vertex in enumerate(fixed)}
            middle = {
                vertex: fmean(rank[other] for other in towards[vertex]) if vertex in towards else float(place)
                for place, vertex in enumerate(moved)
            }
            moved.sort(key=lambda vertex: middle[vertex])


def _places(
    rows: Sequence[Sequence[_Vertex]], neighbours: tuple[dict[_Vertex, list[_Vertex]], ...]
) -> dict[_Vertex, float]:
    y = {vertex: offset for row in rows for vertex, offset in zip(row, _offsets(row), strict=True)}
    for sweep in range(2 * SWEEPS):
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            wishes = [fmean([y[other] for side in neighbours for other in side.get(v, ())] or [y[v]]) for v in row]
            y.update(zip(row, _spaced(wishes, _offsets(row)), strict=True))
    return y


def _offsets(row: Sequence[_Vertex]) -> list[float]:
    """The closest that the vertices of a layer may lie."""
    places = [0.0]
    for one, other in itertools.pairwise(row):
        lanes = isinstance(one, tuple), isinstance(other, tuple)
        places.append(places[-1] + (LANE if all(lanes) else (ROW + LANE) / 2 if any(lanes) else ROW))
    return places[: len(row)]


def _spaced(wishes: Sequence[float], offsets: Sequence[float]) -> list[float]:
    """The places nearest to the wishes (least squares) that keep order and distance: pooling adjacent violators."""
    pools: list[tuple[float, int]] = []
    for wish, offset in zip(wishes, offsets, strict=True):
        mean, count = wish - offset, 1
        while pools and pools[-1][0] > mean:
            before, many = pools.pop()
            mean, count = (mean * count + before * many) / (count + many), count + many
        pools.append((mean, count))
    flat = [mean for mean, count in pools for _ in range(count)]
    return [base + offset for base, offset in zip(flat, offsets, strict=True)]


def _path(places: Sequence[float], first_layer: int) -> str:
    """From the right side of one box, past the dummies, to the left side of the other."""
    start = first_layer * COLUMN + 1 + WIDTH
    words = [f"M{start:.1f} {places[0]:.1f}"]
    x = start
    for step, y in enumerate(places[1:], start=1):
        last = step == len(places) - 1
        end = (first_layer + step) * COLUMN + 1 if last else (first_layer + step) * COLUMN + 1 + WIDTH / 2
        bend = (x + end) / 2
        words.append(f"C{bend:.1f} {places[step - 1]:.1f} {bend:.1f} {y:.1f} {end:.1f} {y:.1f}")
        x = end
    return " ".join(words)
