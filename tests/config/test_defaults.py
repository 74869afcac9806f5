"""Options read back from a key, with their defaults."""

from pathlib import Path

from stx import plan
from stx.config.cluster import load_cluster
from stx.config.defaults import Told, told
from stx.config.load import load_experiment
from stx.stages.base import kind_named

ROOT = Path(__file__).resolve().parents[2]
GRAPH = plan.expand(load_experiment(ROOT / "configs" / "quickstart.yaml"), load_cluster(None))


def options(name: str, role: str = "science") -> dict[str, tuple[object, bool]]:
    node = next(node for node in GRAPH.nodes if node.name == name)
    values = node.spec.science if role == "science" else node.where
    return {one.path: (one.value, one.default) for one in told(kind_named(node.spec.kind).options, values, role=role)}


def test_what_the_file_says_and_what_it_leaves_to_the_defaults() -> None:
    found = options("phase2:guidance=5,seed=0")
    assert found["lr"] == (0.003, False)
    assert found["betas"] == ([0.9, 0.999], True)
    assert found["alignment.guidance"] == (5.0, False)
    assert found["alignment.window"] == ([0.4, 0.7], True)
    assert options("vanilla:seed=0")["alignment.method"] == ("none", True)
    assert options("samples:phase1")["sampler.steps"] == (25, True)


def test_every_value_of_a_key_is_told() -> None:
    for node in GRAPH.nodes:
        paths = [one.path for one in told(kind_named(node.spec.kind).options, node.spec.science, role="science")]
        assert set(node.spec.science) <= {path.split(".")[0] for path in paths}, node.name


def test_options_at_their_neutral_value_are_told_although_they_are_not_in_the_key() -> None:
    assert options("latents")["flips"] == (False, True)


def test_options_out_of_the_key_are_told_without_facts_of_the_plan() -> None:
    assert options("phase1", "where") == {"log_every": (50, True)}


def test_values_that_this_version_does_not_know_come_last() -> None:
    found = told(kind_named("classifier").options, {"seed": 0, "old": {"a": 1}}, role="science")
    assert found[-1] == Told("old.a", 1, False)


def test_a_source_of_the_users_tells_its_version_in_the_key_and_its_path_out_of_it() -> None:
    model = kind_named("images").options
    science = told(model, {"source": {"form": "folder", "version": "1"}, "resolution": 32}, role="science")
    assert Told("source.version", "1", False) in science
    assert Told("source.path", "/data", False) in told(model, {"source": {"path": "/data"}}, role="where")
