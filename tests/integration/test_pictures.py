"""What is looked at after training, through the command line: `inspect` stages, and `stx sample` beside all stages."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MICRO = (Path(__file__).parent / "micro.yaml").read_text()
LOOKS = "  looks: {kind: inspect, runs: [phase1, phase2], times: [0.3, 0.6], num_images: 4, probe: {num_train: 100}}\n"


@pytest.fixture
def finished(micro, stx):
    """The micro experiment's store, copied."""
    shutil.copytree(micro.store, stx.store)
    return stx


def test_inspect_is_added_to_a_finished_experiment_and_nothing_else_runs_again(finished):
    file = finished.folder / "micro.yaml"
    file.write_text(MICRO.replace("report:", LOOKS + "report:"))
    before = finished.attempts()
    finished.run("submit", str(file), "--update")
    after = finished.attempts()
    made = {name: count for name, count in after.items() if before.get(name) != count}
    assert sorted(name.split("-")[0] for name in made) == ["inspect", "inspect"]
    assert set(made.values()) == {1}
    folders = sorted(finished.store.glob("stages/inspect-*/parts/640"))
    guided = [folder for folder in folders if (folder / "guided.npy").exists()]
    assert (len(folders), len(guided)) == (2, 1), "phase 2 has a teacher, phase 1 has none"
    assert json.loads((guided[0] / "inspect.json").read_text())["guided"]["guidance"] == 5.0
    assert np.load(guided[0] / "probes.npy").shape == (2, 2)


def test_sample_prints_the_path_of_a_picture_and_leaves_the_store_as_it_was(finished, tmp_path):
    def content():
        return {path: path.stat().st_mtime_ns for path in finished.store.rglob("*") if path.is_file()}

    before, picture = content(), tmp_path / "grid.png"
    asked = (
        "sample",
        "phase2",
        "--labels",
        "3,3,7",
        "--cfg",
        "4",
        "--interval",
        "0,0.65",
        "--steps",
        "3",
        "--at",
        "20",
    )
    done = finished.run(*asked, "-o", str(picture))
    assert done.stdout.splitlines() == [str(picture)]
    assert "phase2 at step 20 (320 images seen)" in done.stderr
    assert "cfg 4 on t in [0, 0.65]" in done.stderr
    with Image.open(picture) as shown:
        assert shown.size == (3 * 64 + 4 * 2, 64 + 2 * 2)
    assert content() == before
    refused = finished.run("sample", "phase2", "--labels", "ten", "-o", str(picture), expect=2)
    assert 'no class "ten"' in refused.stderr
