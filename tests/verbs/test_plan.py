"""What a plan says beside its table."""

from collections.abc import Callable
from pathlib import Path

import pytest

from stx import records
from stx.coordinator.snapshot import running_science
from stx.errors import ConfigError, PlanError
from stx.verbs import plan
from stx.verbs.plan import Planned


@pytest.fixture
def planned(tmp_path: Path, small: str) -> Callable[[str], Planned]:
    """A plan of the small experiment, of which phase1 has two checkpoints, the newer one of this science digest."""

    def planned(digest: str) -> Planned:
        file = tmp_path / "e.yaml"
        file.write_text(small)
        options = {"sets": (), "cluster": None, "store": str(tmp_path / "store")}
        first = plan.prepare(file, **options)
        node = next(node for node in first.graph.nodes if node.name == "phase1")
        folder = first.store.stage("train", node.key).checkpoints
        for name, written_by in (("8-001", "another"), ("16-001", "another"), ("16-002", digest)):
            (folder / name).mkdir(parents=True)
            records.write(folder / name / "manifest.json", {"science_digest": written_by})
        return plan.prepare(file, **options)

    return planned


def test_a_checkpoint_of_other_science_code_is_told_of_before_it_is_refused(planned: Callable[[str], Planned]) -> None:
    (told,) = plan.other_code(planned("other"))
    assert told == "checkpoints that other science code wrote: phase1; submit with --accept-code or they fail"


def test_a_checkpoint_of_this_code_is_no_news(planned: Callable[[str], Planned]) -> None:
    assert plan.other_code(planned(running_science())) == []


@pytest.fixture
def on_cluster(tmp_path: Path, small: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Planned]:
    """A plan of the small experiment with these options of train stages in the cluster file, on two cores."""
    monkeypatch.setenv("STX_CORES", "2")

    def on_cluster(train: str) -> Planned:
        (tmp_path / "e.yaml").write_text(small)
        (tmp_path / "c.yaml").write_text(f"stages:\n  train:\n    {train}\n")
        options = {"cluster": str(tmp_path / "c.yaml"), "store": str(tmp_path / "store")}
        return plan.prepare(tmp_path / "e.yaml", sets=(), **options)

    return on_cluster


def test_the_first_layout_that_fits_this_machine_is_planned_and_billed(on_cluster: Callable[[str], Planned]) -> None:
    listed = "layouts: [{ranks_per_node: 8}, {nodes: 2}, {ranks_per_node: 2, micro_batch: 2}, {}], flops_per_s: 1.0e+9"
    planned, single = on_cluster(listed.replace(", flops", "\n    flops")), on_cluster("flops_per_s: 1.0e+9")
    assert "global batch 8 = 2 ranks x 2 images x 2 accumulated" in plan.batches(planned)[0]
    assert plan.passed_over(planned) == [
        "train stages: layout 3 of cluster c is used here; 1: 8 ranks x 1 cores = 8, but this machine has 2 for jobs",
        "train stages: layout 3 of cluster c is used here; 2: nodes = 2: the local launcher has one node, this machine",
    ]
    assert plan.to_json(planned)["layouts"]["train"]["ranks"] == 2
    hours = [next(row.hours for row in one.bill.rows if row.stage == "phase1") for one in (planned, single)]
    assert hours[0] == pytest.approx(hours[1] / 2)
    assert plan.passed_over(single) == []


def test_a_list_of_which_nothing_fits_this_machine_is_refused(on_cluster: Callable[[str], Planned]) -> None:
    with pytest.raises(PlanError, match=r"would never start: 8 ranks .* = 8, but .*; 4 ranks .* = 4, but"):
        on_cluster("layouts: [{ranks_per_node: 8}, {ranks_per_node: 4}]")


def test_every_layout_that_does_not_divide_the_batch_is_told_at_its_line(on_cluster: Callable[[str], Planned]) -> None:
    with pytest.raises(ConfigError) as caught:
        on_cluster("layouts:\n      - {ranks_per_node: 2}\n      - {ranks_per_node: 3}\n      - {micro_batch: 5}")
    told = str(caught.value)
    assert "c.yaml:5: stages.train.layouts[1]\n  1 node(s) x 3 ranks = 3 does not divide the global batch" in told
    assert "c.yaml:6: stages.train.layouts[2]\n  1 node(s) x 1 ranks x micro_batch 5 = 5 does not divide" in told
    assert "e.yaml:3: defaults.train.global_batch = 8)" in told
