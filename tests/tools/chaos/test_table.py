"""What the driver prints, as a table and as JSON."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

from tools.chaos import table
from tools.chaos.run import Report, dump

GOOD = Report(
    seed=7,
    faults=Counter({"kill": 3, "point": 8}),
    in_save=4,
    attempts=21,
    recomputed=1600,
    submits=5,
    seconds=41.6,
    named=1,
    unread=1,
    cancelled=(),
    surprises=(),
    lost=(),
    wrong=(),
    store=Path("/s/run-7/store"),
)


def test_a_line_has_a_number_under_each_name():
    cells = table.line(GOOD).split()
    assert cells == ["7", "11", "4", "21", "1,600", "5", "42", "1", "1", "0", "0", "0", "0"]
    assert len(cells) == len(table.COLUMNS)


def test_totals_count_faults_by_kind():
    total, kinds = table.totals([GOOD, GOOD]).splitlines()
    assert total.split()[:3] == ["all", "22", "8"]
    assert kinds == "faults by kind: kill 6, point 16"


def test_whatever_is_not_as_it_should_be_makes_a_run_bad_and_is_told():
    assert GOOD.is_good
    assert table.faults(GOOD) == ""
    for field in ("lost", "wrong", "cancelled", "surprises"):
        bad = replace(GOOD, **{field: ("stages/train-1/milestones/20",)})
        assert not bad.is_good
        assert "stages/train-1/milestones/20" in table.faults(bad)


def test_a_report_is_json():
    record = json.loads(json.dumps(dump(GOOD)))
    assert record["faults"] == {"kill": 3, "point": 8}
    assert record["lost"] == []
