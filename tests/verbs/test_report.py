"""The last table of scores, at every width."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from stx.report.facts import Facts, Origin, Score, Series
from stx.verbs.report import last_scores

METRICS = {"frechet_distance": 117.8, "label_accuracy": 0.4281, "precision": 0.3125, "recall": 0.125}
SERIES = [Series(name, (), name) for name in ("vanilla", "phase2 guidance=5")]


def facts(metrics: Sequence[str]) -> Facts:
    scores = [
        Score(series, str(seed), series.label, "scores", 640, 3.84e9, {m: METRICS[m] + seed for m in metrics}, {}, "d")
        for series in SERIES
        for seed in (0, 1)
    ]
    return Facts(
        "e", "frechet_distance", (), "vanilla", SERIES, scores, (), (), (), (), (), (), Origin(text="", graph="")
    )


def shown(width: int, *, metrics: Sequence[str] = tuple(METRICS)) -> list[str]:
    return [row.text for row in last_scores(facts(metrics), width=width)]


def test_off_a_terminal_every_column_is_there_and_says_which_way_is_better() -> None:
    head, *_, better = shown(0)
    assert [name for name in METRICS if name in head] == list(METRICS)
    assert better == "lower is better: frechet_distance; higher is better: label_accuracy, precision, recall"


def test_eighty_columns_keep_whole_numbers_and_name_what_they_leave_out() -> None:
    head, vanilla, phase2, better, left_out = shown(80)
    assert head.split() == ["series", "frechet_distance", "label_accuracy"]
    assert vanilla.endswith("  0.9281 (0.4281 to 1.428)")
    assert "118.3 (117.8 to 118.8)" in phase2
    assert better == "lower is better: frechet_distance; higher is better: label_accuracy"
    assert left_out.endswith("images seen, total compute, core-hours, seeds, precision, recall")


def test_costs_stay_where_there_is_room_for_them() -> None:
    head, *_, left_out = shown(80, metrics=["frechet_distance"])
    assert "total compute" in head
    assert left_out == "no room here, but in the report: core-hours"


@given(st.integers(40, 200))
def test_the_metric_of_the_report_is_never_cut(width: int) -> None:
    head, *rows = shown(width)[:3]
    assert "frechet_distance" in head
    assert all("118.3 (117.8 to 118.8)" in row for row in rows)
    assert max(map(len, [head, *rows])) <= width
