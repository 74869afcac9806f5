"""The words of `stx status` about coordinators and jobs."""

import pytest

from stx import records
from stx.coordinator.status import Left, Overview
from stx.verbs.listing import Wish
from stx.verbs.select import choose
from stx.verbs.status import Watched, view


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (None, "journal from 18 s ago, coordinator gone"),
        (Left.ENDED, "ended 18 s ago"),
        (Left.INTERRUPTED, "left 18 s ago (Ctrl-C)"),
        (Left.LEFT, "left 18 s ago"),
    ],
)
def test_how_the_last_coordinator_went_is_told(left: Left | None, words: str) -> None:
    (head,) = view(Overview("e", None, 18.0, "", (), left), Wish())
    assert head.text.endswith(f"; {words}")


def test_a_job_is_told_by_its_number(sweep) -> None:
    (chosen,) = choose(sweep.store, "run:seed=2")
    _, _, row = view(Watched(sweep.store, chosen).look(), Wish())
    assert "17" in row.text.split() and "17:1" not in row.text


def test_more_ranks_than_one_of_a_live_attempt_are_told(sweep) -> None:
    (chosen,) = choose(sweep.store, "run:seed=2")
    watched = Watched(sweep.store, chosen)
    assert "ranks" not in view(watched.look(), Wish())[1].text
    attempt = sweep.store.stage("train", sweep.runs[2].key).attempt(1)
    attempt.path.mkdir(parents=True, exist_ok=True)
    records.write(attempt.attempt, {"layout": {"ranks": 4, "zero_stage": 3}})
    look = watched.look()
    _, head, row = view(look, Wish())
    assert row.text[: head.text.index("ranks") + len("ranks")].endswith(" 4")
    assert look.lines[0].dump()["layout"] == {"ranks": 4, "zero_stage": 3}
