"""The layered drawing: no box on another, every edge from left to right, places that keep order and distance."""

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from stx.report import layers


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[str], list[tuple[str, str]]]:
    names = [f"s{n}" for n in range(draw(st.integers(0, 9)))]
    pairs = list(itertools.combinations(names, 2))
    return names, draw(st.lists(st.sampled_from(pairs), max_size=20)) if pairs else []


@given(graphs())
def test_no_box_lies_on_another_and_all_lie_inside(graph: tuple[list[str], list[tuple[str, str]]]) -> None:
    names, edges = graph
    drawing = layers.draw(names, edges)
    assert set(drawing.boxes) == set(names)
    for (x, y), (other_x, other_y) in itertools.combinations(drawing.boxes.values(), 2):
        assert abs(x - other_x) >= layers.WIDTH or abs(y - other_y) >= layers.HEIGHT
    for x, y in drawing.boxes.values():
        assert 0 <= x <= drawing.width - layers.WIDTH
        assert 0 <= y <= drawing.height - layers.HEIGHT + 1e-6


@given(graphs())
def test_every_edge_leads_from_its_source_rightwards_to_its_target(
    graph: tuple[list[str], list[tuple[str, str]]],
) -> None:
    drawing = layers.draw(*graph)
    assert set(drawing.edges) == set(graph[1])
    for (source, target), path in drawing.edges.items():
        numbers = [float(word) for word in re.findall(r"-?[\d.]+", path)]
        xs = numbers[::2]
        assert xs == sorted(xs)
        assert abs(xs[0] - (drawing.boxes[source][0] + layers.WIDTH)) < 0.1
        assert abs(xs[-1] - drawing.boxes[target][0]) < 0.1


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12))
def test_wishes_are_granted_as_far_as_order_and_distance_allow(wishes: list[float]) -> None:
    offsets = [40.0 * n for n in range(len(wishes))]
    places = layers._spaced(wishes, offsets)
    assert all(b - a >= 40.0 - 1e-6 for a, b in itertools.pairwise(places))
    if all(b - a >= 40.0 for a, b in itertools.pairwise(wishes)):
        assert all(abs(a - b) < 1e-6 for a, b in zip(places, wishes, strict=True))
    assert abs(sum(places) - sum(wishes)) < 1e-6 * max(1, len(wishes)) * 1e3
