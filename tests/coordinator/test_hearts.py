"""When a heart that stands still is shown, and when it is a hang."""

from pathlib import Path

import pytest

from jobs.files import AttemptDir
from stx import records
from stx.coordinator.events import Hung, Unseen
from stx.coordinator.hearts import Hearts, Patient

LIMITS = {"start": 100.0, "step": 40.0, "save": 100.0, "other": 200.0}


class Ward:
    def __init__(self, folder: Path, *, count: int) -> None:
        self.now = 0.0
        self.folders = [AttemptDir(folder / str(number)) for number in range(count)]
        for attempt in self.folders:
            attempt.path.mkdir()
        self.counters = [0] * count
        self.hearts = Hearts(LIMITS, poll_s=8.0, clock=lambda: self.now)

    def beat(self, *who: int, phase: str = "step") -> None:
        for number in who:
            self.counters[number] += 1
            records.write(self.folders[number].heartbeat, {"counter": self.counters[number], "phase": phase})

    def look(self, seconds: float, *, running: int = 99, well: bool = True):
        """The first `running` run, the others wait in the queue."""
        self.now += seconds
        patients = [Patient(str(one), 1, folder, one < running) for one, folder in enumerate(self.folders)]
        return self.hearts.look(patients, well=well)


@pytest.fixture
def ward(tmp_path):
    return Ward(tmp_path, count=3)


def test_a_heart_that_beats_says_nothing(ward):
    for _ in range(20):
        ward.beat(0, 1, 2)
        assert ward.look(8.0) == []


def test_one_that_stands_still_is_shown_then_hangs_and_is_said_once(ward):
    ward.beat(0, 1, 2)
    ward.look(0.0)
    said = []
    for _ in range(10):
        ward.beat(1, 2)
        said += ward.look(8.0)
    assert said == [Unseen(16.0, "0", 1, 16.0), Hung(40.0, "0", 1, 40.0)]


def test_one_that_moves_again_is_seen_again(ward):
    ward.beat(0, 1, 2)
    ward.look(0.0)
    ward.beat(1, 2)
    assert ward.look(16.0) == [Unseen(16.0, "0", 1, 16.0)]
    ward.beat(0, 1, 2)
    assert ward.look(1.0) == [Unseen(17.0, "0", 1, 0.0)]


def test_when_half_of_them_stand_still_nobody_is_ended(ward):
    ward.beat(0, 1, 2)
    ward.look(0.0)
    said = []
    for _ in range(30):
        ward.beat(2)
        said += ward.look(8.0)
    assert {type(one) for one in said} == {Unseen}


def test_time_in_which_our_own_writes_failed_does_not_count(ward):
    ward.beat(0, 1, 2)
    ward.look(0.0)
    for number in range(20):
        ward.beat(1, 2)
        assert not [one for one in ward.look(8.0, well=number % 4 != 0) if isinstance(one, Hung)]


def test_what_waits_in_the_queue_has_not_begun_to_start(ward):
    for _ in range(50):
        assert ward.look(50.0, running=0) == []


def test_a_start_has_a_limit_of_its_own_and_unknown_phases_that_of_others(ward):
    ward.look(0.0)
    ward.beat(1, 2, phase="thinking")
    said = []
    for _ in range(19):
        ward.beat(2)
        said += [one for one in ward.look(10.0) if isinstance(one, Hung)]
    assert [(one.key, one.seconds) for one in said] == [("0", 100.0)]


def test_a_look_that_comes_late_knows_nothing_of_the_time_before(ward):
    """The store stalled for all of us: two workers beat again at once, one a moment after we looked."""
    ward.beat(0, 1, 2)
    ward.look(0.0)
    ward.beat(1, 2)
    assert ward.look(500.0) == []
    ward.beat(0, 1, 2)
    assert ward.look(8.0) == []


def test_what_waits_in_the_queue_is_no_witness_that_the_store_works(tmp_path):
    ward = Ward(tmp_path, count=9)
    ward.beat(*range(9))
    ward.look(0.0, running=2)
    said = []
    for _ in range(20):
        said += ward.look(8.0, running=2)
    assert {type(one) for one in said} == {Unseen}, "all that run stand still"
