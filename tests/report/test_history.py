"""Attempts and curves of one stage."""

from typing import Any

import pytest

from stx import records
from stx.report import history


def stage_of(world: Any) -> tuple[Any, Any]:
    node = world.add("run", "train", wants=(640,))
    return node, world.store.stage("train", node.key)


def test_curve_of_a_resumed_run_never_doubles_back(world: Any) -> None:
    node, stage = stage_of(world)
    world.attempt(node, 1, result="YIELDED", lines=[(64, 1.0), (128, 0.9), (192, 0.8), (256, 0.7)])
    world.attempt(node, 2, result="FAILED", cause="LOST")
    world.attempt(node, 3, lines=[(192, 0.81), (256, 0.71), (320, 0.6)])
    points = history.curve(stage)
    assert [point.images for point in points] == [64, 128, 192, 256, 320]
    assert [point.values["diffusion"] for point in points] == [1.0, 0.9, 0.81, 0.71, 0.6]


def test_unterminated_last_metrics_line_is_ignored(world: Any) -> None:
    node, stage = stage_of(world)
    world.attempt(node, 1, lines=[(64, 1.0)])
    with stage.attempt(1).metrics.open("ab") as stream:
        stream.write(b'{"images": 128, "los')
    assert [point.images for point in history.curve(stage)] == [64]


def test_attempts_tell_cause_time_and_ranks(world: Any) -> None:
    node, stage = stage_of(world)
    world.attempt(node, 1, result="FAILED", cause="LOST", message="gone", seconds=12.0)
    world.attempt(node, 2, ranks=2, seconds=30.0, info={"recomputed_images": 64})
    first, second = history.attempts(stage)
    assert (first.result, first.cause, first.message, first.seconds) == ("FAILED", "LOST", "gone", 12.0)
    assert (second.result, second.ranks, second.seconds, second.recomputed_images) == ("COMPLETED", 2, 30.0, 64)


def test_the_worst_rank_speaks_for_the_attempt(world: Any) -> None:
    node, stage = stage_of(world)
    world.attempt(node, 1, ranks=3)
    folder = stage.attempt(1)
    for rank, cause in ((1, "USER"), (2, "OOM")):
        record = {"rank": rank, "result": "FAILED", "cause": cause, "message": cause, "info": {}}
        records.publish(folder.outcome(rank), record)
    (told,) = history.attempts(stage)
    assert (told.result, told.cause) == ("FAILED", "OOM")


def test_attempt_without_any_end_is_live(world: Any) -> None:
    _, stage = stage_of(world)
    folder = stage.attempt(1)
    folder.path.mkdir(parents=True)
    records.publish(folder.intent, {})
    assert [attempt.result for attempt in history.attempts(stage)] == ["LIVE"]


def test_long_curves_are_thinned_to_means_of_neighbours(world: Any) -> None:
    node, stage = stage_of(world)
    world.attempt(node, lines=[(64 * step, float(step)) for step in range(1, 101)])
    points = history.curve(stage, limit=10)
    assert [point.images for point in points] == [640 * part for part in range(1, 11)]
    assert [point.values["diffusion"] for point in points] == [5.5 + 10 * part for part in range(10)]
    assert history.curve(stage, limit=100) == history.curve(stage)


def test_a_loss_that_was_no_number_leaves_a_gap_and_no_zero(world: Any) -> None:
    node, stage = stage_of(world)
    world.attempt(node, lines=[(64, 1.0)])
    records.append(stage.attempt(1).metrics, {"images": 128, "diffusion": None, "grad_norm": 2.0})
    records.append(stage.attempt(1).metrics, {"images": 192, "diffusion": 3.0})
    assert [point.values.get("diffusion") for point in history.curve(stage)] == [1.0, None, 3.0]
    (mean,) = history.curve(stage, limit=1)
    assert mean.values["diffusion"] == 2.0


def test_a_damaged_line_of_metrics_is_named_and_left_out(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A bit on a bad disk must not cost the report over everything else."""
    node, stage = stage_of(world)
    world.attempt(node, lines=[(64, 1.0)])
    with stage.attempt(1).metrics.open("ab") as stream:
        stream.write(b'{"images": 1}, {"images": 2}\n{"imagfs": 128}\n{"images": 192, "diffusion": 2.0}\n')
    assert [point.images for point in history.curve(stage)] == [64, 192]
    assert "metrics.jsonl:2" in caplog.text
