"""What a plan says beside its table."""

from collections.abc import Callable
from pathlib import Path

import pytest

from stx import records
from stx.coordinator.snapshot import running_science
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
