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


@pytest.fixture
def smoked(store: Store) -> Store:
    """The same after `submit --smoke` of experiment `one`, whose stages have other keys there."""
    graph = Graph("one-smoke", (node("a", seed=7), node("b:seed=0", seed=8), node("extra")))
    place = store.experiment("one-smoke")
    place.path.mkdir()
    place.file.write_text("# smoke of one (e.yaml)\nname: one-smoke\n")
    records.write(place.graph, graph.dump())
    return store


def test_a_stage_is_meant_before_that_of_the_smoke_run(smoked: Store) -> None:
    assert names(smoked, "b:seed=0") == [("one", "b:seed=0")]
    assert names(smoked, "one-smoke/b:seed=0") == [("one-smoke", "b:seed=0")]
    assert names(smoked, "extra") == [("one-smoke", "extra")]
    assert select.choose_one(smoked, "a")[1].key == ONE.nodes[0].key


def test_beside_a_smoke_run_its_own_stage_is_meant(smoked: Store) -> None:
    assert select.choose_one(smoked, "b:seed=0", near="one-smoke")[0].experiment == "one-smoke"


def test_an_experiment_of_a_persons_own_is_no_smoke_run_whatever_its_name(smoked: Store) -> None:
    smoked.experiment("one-smoke").file.write_text("name: one-smoke\n")
    assert names(smoked, "b:seed=0") == [("one", "b:seed=0"), ("one-smoke", "b:seed=0")]


def test_of_several_stages_those_that_fit_are_meant(store: Store) -> None:
    _, found = select.choose_one(store, "b", fit=lambda one: one.name == "b:seed=1")
    assert found.name == "b:seed=1"
    with pytest.raises(ConfigError, match='"one" names 2 stages\n  give one of: b:seed=0, b:seed=1'):
        select.choose_one(store, "one", fit=lambda one: one.stage == "b")
    with pytest.raises(ConfigError, match='"one" names 3 stages'):
        select.choose_one(store, "one", fit=lambda one: False)


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [("two/cafi", "two/cafe"), ("twoo/cafe", "two/cafe"), ("one/bb", "one/b"), ("one/cafe", ""), ("cafi", "cafe")],
)
def test_a_suggestion_can_be_typed_as_it_stands(store: Store, pattern: str, meant: str) -> None:
    with pytest.raises(ConfigError) as caught:
        select.choose(store, pattern)
    assert str(caught.value.hint).partition("known:")[0] == (f'did you mean "{meant}"? ' if meant else "")


def test_an_experiment_is_suggested_for_a_stage_of_it(store: Store) -> None:
    with pytest.raises(ConfigError, match=r'did you mean "two"\?'):
        select.one_experiment(store, "two/cafe")


def test_a_folder_that_no_experiment_names_is_told_from_nothing(store: Store) -> None:
    (store.stages / "command-0123456789ab").mkdir(parents=True)
    for pattern in ("command-0123456789ab", "01234"):
        with pytest.raises(ConfigError, match=f'no experiment names "{pattern}" any more'):
            select.choose(store, pattern)


def test_a_file_is_no_store(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.touch()
    with pytest.raises(ConfigError, match="a store is a folder, this is a file"):
        select.existing_store(str(file))


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
