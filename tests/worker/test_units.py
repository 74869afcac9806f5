"""Units shared by ranks, one rank after another in this process; real processes are in test_interrupted.py."""

import contextlib
import functools
import json
import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs import outcome, runtime
from jobs.outcome import Outcome
from jobs.spec import Result
from stx.worker import units
from stx.worker.attempt import Yielded
from stx.worker.progress import Progress

ROWS, SIZE = 20, 3  # seven units, the last of two rows


@pytest.fixture
def new_attempt(workshop):
    return lambda: workshop.attempt("latents", science={})


def all_units(attempt):
    folder = attempt.stage.payload
    folder.mkdir(exist_ok=True)
    return units.cut(ROWS, size=SIZE, path=lambda number: folder / f"unit-{number}")


def work(attempt, *, rank, ranks, progress=None, made=None):
    """One rank's part; the numbers of the units that it made (in `made` even if it was asked to leave)."""
    made, attempt = [] if made is None else made, replace(attempt, rank=rank, world_size=ranks)
    progress = progress or Progress(attempt, total=ROWS)
    progress.attempt = attempt
    for unit in units.share(progress, all_units(attempt)):
        unit.path.write_text(f"{unit.first} {unit.last}")
        made.append(unit.number)
    return made


def ended(attempt, rank, result):
    outcome.publish(attempt.folder, Outcome(rank, result))


def test_the_units_cover_all_rows_once(new_attempt):
    cut = all_units(new_attempt())
    assert [(unit.number, unit.first, unit.last) for unit in cut][-2:] == [(5, 15, 18), (6, 18, 20)]
    assert [row for unit in cut for row in range(unit.first, unit.last)] == list(range(ROWS))


def test_each_rank_makes_every_wth_unit_and_rank_0_ends_when_all_stand(new_attempt):
    attempt = new_attempt()
    assert work(attempt, rank=2, ranks=3) == [2, 5]
    assert work(attempt, rank=1, ranks=3) == [1, 4]
    assert work(attempt, rank=0, ranks=3) == [0, 3, 6]
    assert work(attempt, rank=0, ranks=1) == []


def test_rank_0_waits_for_the_others_and_its_heart_goes_on(new_attempt, monkeypatch):
    monkeypatch.setattr(units, "POLL_S", 0.01)
    attempt, made = new_attempt(), []
    thread = threading.Thread(target=lambda: made.append(work(attempt, rank=0, ranks=2)))
    thread.start()
    while attempt.heart.counter < 20:
        assert thread.is_alive()
    assert work(attempt, rank=1, ranks=2) == [1, 3, 5]
    thread.join(10)
    assert made == [[0, 2, 4, 6]]


@pytest.mark.parametrize("result", [Result.YIELDED, Result.COMPLETED])
def test_what_a_rank_left_behind_rank_0_makes(new_attempt, result):
    attempt = new_attempt()
    all_units(attempt)[3].path.write_text("9 12")
    ended(attempt, 1, result)
    assert work(attempt, rank=0, ranks=2) == [0, 2, 4, 6, 1, 5]


def test_rank_0_leaves_while_it_waits_when_it_is_asked_to(new_attempt, stop):
    attempt = new_attempt()
    for unit in all_units(attempt)[::2]:
        unit.path.write_text("")
    stop.now()
    with pytest.raises(Yielded):
        work(attempt, rank=0, ranks=2)
    assert attempt.notes["images"] == 11


def test_a_rank_that_is_asked_to_leave_finishes_the_unit_in_hand(new_attempt, stop):
    attempt = new_attempt()
    stop.now()
    with pytest.raises(Yielded):
        work(attempt, rank=1, ranks=3)
    assert [unit.number for unit in all_units(attempt) if unit.path.exists()] == [1]
    assert work(attempt, rank=1, ranks=3) == [4], "nothing of its own is left: it is through, not interrupted"


def test_within_a_unit_only_that_unit_is_lost(new_attempt, stop):
    attempt = new_attempt()
    progress = Progress(attempt, total=ROWS)
    shares = units.share(progress, all_units(attempt))
    next(shares).path.write_text("")
    next(shares)
    progress.within(2)
    beat = json.loads(attempt.folder.heartbeat.read_text())
    assert beat["phase"] == "step"
    stop.now()
    with pytest.raises(Yielded):
        progress.within(2)
    assert attempt.notes["images"] == 3


def test_rows_that_stood_are_found_and_those_of_all_ranks_are_made(new_attempt):
    attempt = new_attempt()
    for unit in all_units(attempt)[:2]:
        unit.path.write_text("")
    progress = Progress(attempt, total=ROWS)
    ended(attempt, 1, Result.COMPLETED)
    work(attempt, rank=0, ranks=2, progress=progress)
    assert (progress.found, progress.made, progress.done) == (6, 14, ROWS)


attempts = st.lists(st.tuples(st.integers(1, 4), st.lists(st.integers(0, 3), min_size=4, max_size=4)), max_size=4)


@settings(deadline=None, max_examples=40)
@given(attempts=attempts, last=st.integers(1, 4))
def test_whatever_the_interruptions_and_ranks_every_unit_is_made_once(workshop_of, attempts, last):
    attempt, made = workshop_of(), []
    with pytest.MonkeyPatch.context() as patch:
        for ranks, patience in attempts:
            for rank in reversed(range(ranks)):
                asked = iter(range(patience[rank]))
                patch.setattr(
                    runtime, "stop_requested", functools.partial(lambda left: next(left, None) is None, asked)
                )
                with contextlib.suppress(Yielded):
                    work(attempt, rank=rank, ranks=ranks, made=made)
        patch.setattr(runtime, "stop_requested", lambda: False)
        for rank in reversed(range(last)):
            work(attempt, rank=rank, ranks=last, made=made)
    assert sorted(made) == list(range(7))
    assert [unit.path.read_text() for unit in all_units(attempt)] == [
        f"{unit.first} {unit.last}" for unit in all_units(attempt)
    ]


@pytest.fixture(scope="session")
def workshop_of(tmp_path_factory, new_workshop):
    """A new attempt in a new store, for tests that need many."""
    return lambda: new_workshop(tmp_path_factory.mktemp("units")).attempt("latents", science={})
