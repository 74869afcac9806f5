"""What an edit changes."""

from stx.spec import Cost, Graph, Node, StageSpec
from stx.verbs.differences import between, words


def graph(*nodes: Node, y: str = "d") -> Graph:
    return Graph("e", nodes, {"y": y})


def train(name: str = "run", *, lr: float = 1.0, wants: tuple[int, ...] = (10,), **more: object) -> Node:
    return Node(name, name, StageSpec("train", 1, {"lr": lr}), wants=wants, **more)  # type: ignore[arg-type]


def test_first_submit_differs_from_nothing() -> None:
    assert between(None, graph(train())) == []


def test_costs_and_priorities_are_no_difference() -> None:
    assert between(graph(train(cost=Cost(1.0))), graph(train(cost=Cost(2.0), priority=3.0))) == []


def test_every_kind_of_change_is_told() -> None:
    old = graph(train(), train("gone"), train("longer"), train("logs", where={"log_every": 50}))
    new = graph(
        train(lr=2.0),
        train("fresh"),
        train("longer", wants=(10, 20)),
        train("logs", where={"log_every": 10}),
        y="other",
    )
    text = words("e", between(old, new))
    assert "added fresh" in text
    assert "removed gone" in text
    assert "changed run: lr 1 -> 2" in text
    assert "changed longer: images seen 10 -> 10/20" in text
    assert "changed logs: log_every (not in the key)" in text
    assert "changed report" in text


def test_long_differences_are_cut() -> None:
    many = graph(*(train(f"n{index}") for index in range(50)))
    assert "and 30 more" in words("e", between(graph(), many)[:50])
