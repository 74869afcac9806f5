"""Tables as golden text: what a reader sees may not change unnoticed."""

from typing import Any

from stx.report import tables, words
from stx.report.collect import collect

SUMMARY = """\
| series | images seen | total compute | seeds | frechet_distance (lower is better) | \
label_accuracy (higher is better) |
| --- | ---: | ---: | ---: | ---: | ---: |
| vanilla | 32,000 | 32 TFLOP | 2 | 1.365 (1.360 to 1.370) | 0.7733 (0.7733 to 0.7733) |
| phase1 | 32,000 | 32 TFLOP | 1 | 1.405 (one seed) | 0.7658 (one seed) |
| phase2 guidance=1 | 32,000 | 66 TFLOP | 1 | 1.288 (one seed) | 0.7853 (one seed) |
| phase2 guidance=5 | 32,000 | 66 TFLOP | 2 | 0.9950 (0.9900 to 1.000) | 0.8350 (0.8350 to 0.8350) |
| phase2 guidance=30 | 32,000 | 66 TFLOP | 1 | 1.470 (one seed) | 0.7550 (one seed) |"""

ATTEMPTS = """\
| stage | attempt | result | cause | ranks | time | message |
| --- | ---: | --- | --- | --- | ---: | --- |
| flaky | 1 | FAILED | OOM | 1 | 30 s | out of memory \\| really; Traceback |
| flaky | 2 | COMPLETED |  | 2 | 2.0 min |  |"""


def test_summary_table(quickstart: Any) -> None:
    assert tables.markdown(tables.summary(collect(quickstart.store, quickstart.experiment))) == SUMMARY


def test_attempts_table_shows_only_stages_with_a_story(world: Any) -> None:
    smooth = world.add("smooth", "command")
    flaky = world.add("flaky", "command")
    world.attempt(smooth)
    world.attempt(flaky, 1, result="FAILED", cause="OOM", message="out of memory | really\nTraceback")
    world.attempt(flaky, 2, ranks=2, seconds=120.0)
    world.save()
    assert tables.markdown(tables.attempts(collect(world.store, world.experiment))) == ATTEMPTS


def test_costs_table_sums_attempts_and_recomputed_images(world: Any) -> None:
    node = world.add("run", "train", wants=(640,))
    world.attempt(node, 1, result="YIELDED", info={"recomputed_images": 64}, seconds=30.0)
    world.attempt(node, 2, info={"recomputed_images": 128}, seconds=90.0)
    world.save()
    (row,) = tables.costs(collect(world.store, world.experiment)).rows
    assert row[3:8] == ("0 of 1", "2", "1", "2.0 min", "192")


def test_protocols_that_differ_get_a_column_each(world: Any) -> None:
    flat = tables.flatten({"sampler": {"steps": 25, "interval": [0.0, 1.0]}, "labels": "balanced"})
    assert flat == {"sampler.steps": "25", "sampler.interval": "[0, 1]", "labels": "balanced"}


def test_numbers_are_words_people_read() -> None:
    assert [words.flops(v) for v in (0, 999, 1e3, 3.412e12, 999.96e12)] == [
        "-",
        "999 FLOP",
        "1 kFLOP",
        "3.41 TFLOP",
        "1 PFLOP",
    ]
    assert [words.duration(v) for v in (None, 45, 210, 7200, 4 * 86400)] == ["-", "45 s", "3.5 min", "2.0 h", "4.0 d"]
    assert [words.number(v) for v in (0.97, 13.456, 1234.5, 1e-5)] == ["0.9700", "13.46", "1234", "1.000e-05"]
    assert [words.plain(v) for v in (5.0, [0.4, 0.7], None, {"a": 1.0})] == ["5", "[0.4, 0.7]", "none", "a=1"]
