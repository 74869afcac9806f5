"""Tables as golden text: what a reader sees may not change unnoticed."""

from typing import Any

from stx.report import tables, words
from stx.report.collect import collect
from stx.report.facts import Facts
from stx.spec import Cost

SUMMARY = """\
| series | images seen | total compute | core-hours | seeds | frechet_distance (lower is better) | \
label_accuracy (higher is better) |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| vanilla | 32,000 | 32 TFLOP | 0.0083 | 2 | 1.365 (1.360 to 1.370) | 0.7733 (0.7733 to 0.7733) |
| phase1 | 32,000 | 32 TFLOP | 0.0083 | 1 | 1.405 (one seed) | 0.7658 (one seed) |
| phase2 guidance=1 | 32,000 | 66 TFLOP | 0.039 | 1 | 1.288 (one seed) | 0.7853 (one seed) |
| phase2 guidance=5 | 32,000 | 66 TFLOP | 0.039 | 2 | 0.9950 (0.9900 to 1.000) | 0.8350 (0.8350 to 0.8350) |
| phase2 guidance=30 | 32,000 | 66 TFLOP | 0.039 | 1 | 1.470 (one seed) | 0.7550 (one seed) |"""

ATTEMPTS = """\
| stage | attempt | result | cause | ranks | time | message |
| --- | ---: | --- | --- | --- | ---: | --- |
| flaky | 1 | FAILED | OOM | 1 | 30 s | out of memory \\| really; Traceback |
| flaky | 2 | COMPLETED |  | 2 | 2.0 min |  |"""


def test_summary_table(facts: Facts) -> None:
    assert tables.markdown(tables.summary(facts)) == SUMMARY


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
    assert row[3:9] == ("0 of 1", "1", "2", "2.0 min", "0.033", "192")


def test_costs_fold_by_stage_with_a_sum_of_all(world: Any) -> None:
    for seed in (0, 1):
        node = world.add(f"run:seed={seed}", "train", stage="run", science={"seed": seed}, cost=Cost(1e12))
        world.attempt(node, seconds=1800.0, ranks=2)
    world.add("later", "command")
    world.save()
    table = tables.stage_costs(collect(world.store, world.experiment))
    assert table.rows == (
        ("run", "train", "0 of 2", "2", "1.0 h", "2", "0", "2 TFLOP"),
        ("later", "command", "0 of 1", "0", "0 s", "0", "0", "-"),
        ("**all**", "", "0 of 3", "2", "1.0 h", "2", "0", "2 TFLOP"),
    )


def test_causes_are_counted(world: Any) -> None:
    node = world.add("run", "command")
    for number, (result, cause) in enumerate([("FAILED", "LOST"), ("FAILED", "LOST"), ("COMPLETED", None)], start=1):
        world.attempt(node, number, result=result, cause=cause)
    world.save()
    table = tables.causes(collect(world.store, world.experiment))
    assert table.rows == (("COMPLETED", "-", "1", "30 s"), ("FAILED", "LOST", "2", "1.0 min"))


def test_the_origin_names_code_packages_and_layout_of_all_attempts(world: Any) -> None:
    node = world.add("run", "train")
    world.attempt(node, 1, result="YIELDED", ranks=2)
    world.attempt(node, 2, layout={"ranks": 1, "zero_stage": 1, "micro_batch": 8})
    world.save()
    rows = dict(tables.origin(collect(world.store, world.experiment)).rows)
    assert rows["code"] == "`c0dec0dec0de`"
    assert rows["torch"] == "2.15.0"
    assert rows["cluster"] == "local"
    both = "2 ranks, 1 thread (1 attempt); 1 rank, 1 thread, ZeRO 1, micro-batch 8 (1 attempt)"
    assert rows["layout"] == both


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
