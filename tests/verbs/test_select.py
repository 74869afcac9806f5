"""What a pattern names."""

from pathlib import Path

import pytest

from stx import records
from stx.errors import ConfigError
from stx.paths import Store
from stx.spec import Graph, Node, StageSpec
from stx.verbs import select


def node(name: str, *, seed: int = 0) -> Node:
    return Node(
        name=name, stage=name.split(":")[0], spec=StageSpec("command", 1, {"name": name.split(":")[0], "seed": seed})
    )


ONE = Graph("one", (node("a"), node("b:seed=0"), node("b:seed=1", seed=1)))
TWO = Graph("two", (node("a"), node("cafe")))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    for graph in (ONE, TWO):
        store.experiment(graph.experiment).path.mkdir(parents=True)
        records.write(store.experiment(graph.experiment).graph, graph.dump())
    return store


def names(store: Store, pattern: str | None) -> list[tuple[str, str]]:
    return [(one.experiment, node.name) for one in select.choose(store, pattern) for node in one.nodes]


def test_no_pattern_is_every_experiment(store: Store) -> None:
    assert [one.experiment for one in select.choose(store, None)] == ["one", "two"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("two", [("two", "a"), ("two", "cafe")]),
        ("t*", [("two", "a"), ("two", "cafe")]),
        ("a", [("one", "a"), ("two", "a")]),
        ("two/a", [("two", "a")]),
        ("b", [("one", "b:seed=0"), ("one", "b:seed=1")]),
        ("b:seed=1", [("one", "b:seed=1")]),
        ("*seed=0", [("one", "b:seed=0")]),
        ("cafe", [("two", "cafe")]),
    ],
)
def test_patterns(store: Store, pattern: str, expected: list[tuple[str, str]]) -> None:
    assert names(store, pattern) == expected


def test_key_prefixes_need_four_digits_and_may_carry_the_kind(store: Store) -> None:
    key = ONE.nodes[1].key
    assert names(store, key[:4]) == names(store, f"command-{key[:12]}") == [("one", "b:seed=0")]
    with pytest.raises(ConfigError):
        select.choose(store, key[:3])


def test_stage_that_two_experiments_share_is_one_stage(store: Store) -> None:
    chosen, found = select.choose_one(store, "a")
    assert (chosen.experiment, found.name) == ("one", "a")


def test_unknown_experiment_before_the_slash_is_an_error(store: Store) -> None:
    with pytest.raises(ConfigError, match="nothing is called"):
        select.choose(store, "three/a")


def test_store_is_the_flag_then_the_environment_then_the_cluster_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STX_STORE", raising=False)
    assert select.store_root(None, cluster_store="/c") == Path("/c")
    assert select.store_root(None) == Path.cwd() / "stx-store"
    monkeypatch.setenv("STX_STORE", "/e")
    assert select.store_root(None, cluster_store="/c") == Path("/e")
    assert select.store_root("/f", cluster_store="/c") == Path("/f")
