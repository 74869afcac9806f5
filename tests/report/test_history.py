"""Attempts and curves of one stage."""

from typing import Any

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
