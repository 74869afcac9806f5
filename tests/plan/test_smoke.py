"""The small experiment before the real one: same models and batches, two steps, other keys."""

from pathlib import Path

import pytest

from stx import plan
from stx.config.cluster import Cluster
from stx.config.load import load_experiment
from stx.errors import ConfigError
from stx.plan.smoke import MOST_POINTS, is_smoke, smoke

ROOT = Path(__file__).parents[2]
PHASE2 = "sweep: [{seed: 0}, {alignment.guidance: 30, seed: 0}]"
VANILLA = "sweep: {seed: [0, 1]}"


def graph(made):
    return plan.expand(made, Cluster())


@pytest.fixture
def smoked(tmp_path, small):
    """The smoke experiment of the small one, with something replaced, and its nodes by name."""

    def smoked(*swaps):
        text = small
        for old, new in swaps:
            assert old in text, old
            text = text.replace(old, new, 1)
        path = tmp_path / "e.yaml"
        path.write_text(text)
        made = smoke(load_experiment(path))
        return made, {node.name: node for node in graph(made).nodes}

    return smoked


def test_two_steps_of_everything_with_the_real_models_and_batches(smoked, expand):
    made, nodes = smoked()
    real = expand()
    assert made.name == "small-smoke"
    for name in ("model", "global_batch", "alignment", "precision"):
        assert nodes["phase1"].spec.science[name] == real["phase1"].spec.science[name]
    assert nodes["phase1"].wants == nodes["samples:phase1"].wants == (2 * 8,)
    samples = nodes["samples:phase1"].spec.science
    assert (samples["sampler"]["steps"], samples["num_samples"]) == (2, 20)
    assert nodes["images"].spec.science["limit"] < 1000
    assert not {node.key for node in nodes.values()} & {node.key for node in real.graph.nodes}


def test_of_a_sweep_the_points_that_differ_in_more_than_their_seed_are_tried(smoked):
    _, nodes = smoked()
    assert [name for name in nodes if name.startswith(("vanilla", "phase2"))] == [
        "vanilla:seed=0",
        "phase2:guidance=5,seed=0",
        "phase2:guidance=30,seed=0",
    ]
    _, nodes = smoked((PHASE2, f"sweep: {{alignment.guidance: {list(range(1, 40))}}}"))
    assert sum(name.startswith("phase2:") for name in nodes) == MOST_POINTS


def test_small_chunks_still_make_enough_samples_for_every_metric(smoked):
    _, nodes = smoked(("num_samples: 20", "num_samples: 20, batch: 1"), ("[frechet_distance]", "[precision_recall]"))
    assert nodes["samples:phase1"].spec.science["num_samples"] == 8


def test_a_sweep_over_what_is_made_small_is_one_point(smoked):
    _, nodes = smoked((VANILLA, "sweep: {steps: [100, 200]}"), ("milestones: [20]", "milestones: [20]"))
    assert nodes["vanilla"].wants == (16,)


def test_stages_that_ask_for_a_milestone_get_the_end_of_the_small_run(smoked):
    _, nodes = smoked(
        ("{kind: freeze, run: phase1}", "{kind: freeze, run: phase1, at: 20}"),
        ("num_samples: 20}", "num_samples: 20, at: [20]}"),
        ("  scores:", "  looks: {kind: inspect, runs: [phase1]}\n  scores:"),
    )
    assert nodes["teacher"].spec.inputs["run"].images == 16
    assert nodes["looks:phase1"].wants == nodes["samples:phase1"].wants == (16,)


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_experiment_that_is_shipped_has_a_smoke_run(config):
    made = smoke(load_experiment(config))
    assert all(max(node.wants) <= 2 * 1024 for node in graph(made).nodes if node.spec.kind == "train")


def test_two_classes_of_few_images_are_enough_for_a_smoke_run_of_an_inspection(smoked, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(6):
            (tmp_path / "pets" / name / f"{number}.png").write_bytes(b"")
    own = "source: {folder: pets, version: v1}, resolution: 32, held_out: 4"
    looks = "looks: {kind: inspect, runs: [phase1], probe: {num_train: 8, num_test: 4}, num_images: 4}"
    _, nodes = smoked(("source: mnist5k, resolution: 32, held_out: 500", own), ("  scores:", f"  {looks}\n  scores:"))
    asked = nodes["looks:phase1"].spec.science
    assert max(asked["num_images"], asked["probe"]["num_test"]) <= nodes["images"].spec.science["held_out"]


def test_its_file_is_an_experiment_file_of_the_same_graph(smoked, tmp_path):
    made, _ = smoked()
    assert is_smoke(made.text) and not is_smoke("name: x\n")
    (tmp_path / "again.yaml").write_text(made.text)
    again = graph(load_experiment(tmp_path / "again.yaml"))
    assert again.dump() == graph(made).dump()


def test_a_name_that_leaves_no_room_is_refused(smoked):
    with pytest.raises(ConfigError, match="too long") as caught:
        smoked(("name: small", f"name: {'a' * 60}"))
    assert "e.yaml:1: name = " in str(caught.value)
