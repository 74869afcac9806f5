"""The words of `stx status` about coordinators and jobs."""

import pytest

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
