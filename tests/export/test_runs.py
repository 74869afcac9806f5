"""What is exported."""

from typing import Any

from stx.export.runs import Run, runs


def found(scene: Any) -> dict[str, Run]:
    return {one.name: one for one in runs(scene.store, scene.graph)}


def test_an_interrupted_run_has_one_curve_that_never_doubles_back(scene: Any) -> None:
    run = found(scene)["run:seed=0"]
    assert [(row.images, row.values["train/loss"]) for row in run.rows] == [
        (16, 1.0),
        (32, 1.0),
        (48, 0.5),
        (64, 0.5),
        (80, 0.5),
    ]
    assert run.rows[0].time == 1016.0
    assert set(run.rows[0].values) == {"train/loss"}  # a number that was none, steps and times are not drawn


def test_scores_are_rows_at_the_images_that_their_milestone_saw(scene: Any) -> None:
    assert [(row.images, dict(row.values)) for row in found(scene)["scores"].rows] == [
        (64, {"scores/frechet_distance": 2.0})
    ]


def test_stages_without_numbers_and_second_names_of_a_key_are_left_out(scene: Any) -> None:
    assert list(found(scene)) == ["run:seed=0", "scores"]


def test_options_are_told_by_path(scene: Any) -> None:
    assert found(scene)["run:seed=0"].options == {"seed": 0, "alignment.method": "none"}
