"""Event files, read by TensorBoard's own reader."""

import os
from pathlib import Path
from typing import Any

from stx.export import tensorboard
from stx.export.runs import runs


def export(scene: Any, folder: Path) -> dict[str, int]:
    """The bytes that were written, by run."""
    return {one.name: one.bytes for one in tensorboard.write(runs(scene.store, scene.graph), folder)}


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: tag -> steps and values."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(one.step, round(one.value, 6)) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_shows_curves_and_scores_by_images_seen(scene: Any, tmp_path: Path) -> None:
    export(scene, tmp_path / "tb")
    assert read(tmp_path / "tb" / "run:seed=0") == {
        "train/loss": [(16, 1.0), (32, 1.0), (48, 0.5), (64, 0.5), (80, 0.5)]
    }
    assert read(tmp_path / "tb" / "scores") == {"scores/frechet_distance": [(64, 2.0)]}


def test_exporting_again_writes_nothing(scene: Any, tmp_path: Path) -> None:
    export(scene, tmp_path / "tb")
    assert export(scene, tmp_path / "tb") == {"run:seed=0": 0, "scores": 0}


def test_new_rows_are_appended_to_the_file_that_a_running_tensorboard_reads(scene: Any, tmp_path: Path) -> None:
    export(scene, tmp_path / "tb")
    path = tmp_path / "tb" / "run:seed=0" / tensorboard.FILE
    before = (path.stat().st_ino, path.read_bytes())
    scene.log(2, (96,), loss=0.25)
    scene.score(128, distance=1.0)
    written = export(scene, tmp_path / "tb")
    assert path.stat().st_ino == before[0]
    assert path.read_bytes().startswith(before[1])
    assert 0 < written["run:seed=0"] < 100
    assert read(path.parent)["train/loss"][-1] == (96, 0.25)
    assert read(tmp_path / "tb" / "scores")["scores/frechet_distance"] == [(64, 2.0), (128, 1.0)]


def test_a_lineage_that_goes_on_from_an_earlier_checkpoint_replaces_the_file(scene: Any, tmp_path: Path) -> None:
    export(scene, tmp_path / "tb")
    scene.log(3, (32, 48), loss=0.125)
    export(scene, tmp_path / "tb")
    assert read(tmp_path / "tb" / "run:seed=0")["train/loss"] == [(16, 1.0), (32, 0.125), (48, 0.125)]


def test_a_file_that_was_cut_short_is_completed(scene: Any, tmp_path: Path) -> None:
    export(scene, tmp_path / "tb")
    path = tmp_path / "tb" / "run:seed=0" / tensorboard.FILE
    whole = path.read_bytes()
    os.truncate(path, len(whole) - 7)
    export(scene, tmp_path / "tb")
    assert path.read_bytes() == whole
