"""How long a scheduler that refuses is left in peace."""

import pytest

from stx.coordinator.throttle import Throttle
from stx.errors import BackendError


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def pause(throttle: Throttle, clock: Clock, *, live: int = 1) -> float:
    """Seconds until it is lifted, looked at every ten."""
    begin = clock.now
    while not throttle.lifted(live):
        clock.now += 10.0
    return clock.now - begin


def test_every_refusal_closes_it_for_twice_as_long_and_ten_minutes_at_most(clock):
    throttle = Throttle(clock)
    assert not throttle.closed
    pauses = []
    for _ in range(7):
        throttle.refused(BackendError("full"))
        assert throttle.closed
        pauses.append(pause(throttle, clock))
    assert pauses == [30, 60, 120, 240, 480, 600, 600]
    throttle.taken()
    throttle.refused(BackendError("full"))
    assert pause(throttle, clock) == 30


def test_it_is_lifted_once_the_reason_is_known_to_be_gone_and_forgets_how_often_it_was_closed(clock):
    throttle, error, well = Throttle(clock), BackendError("not up"), []
    error.cured = lambda: bool(well)
    for _ in range(4):
        throttle.refused(error)
        pause(throttle, clock)
    throttle.refused(error)
    assert not throttle.lifted(1)
    well.append(True)
    assert throttle.lifted(1) and not throttle.closed
    throttle.refused(BackendError("full"))
    assert pause(throttle, clock) == 30


def test_the_end_of_a_job_makes_room_and_another_one_that_lives_does_not(clock):
    throttle = Throttle(clock)
    throttle.refused(BackendError("you have as many jobs as you may"))
    assert [throttle.lifted(live) for live in (3, 4, 4, 3)] == [False, False, False, True]
    throttle.refused(BackendError("you have as many jobs as you may"))
    assert pause(throttle, clock, live=2) == 60, "what ended before it was asked made no room"


def test_a_cure_that_cannot_be_looked_for_is_waited_for(clock):
    def unreadable() -> bool:
        raise OSError("the record cannot be read")

    throttle, error = Throttle(clock), BackendError("not up")
    error.cured = unreadable
    throttle.refused(error)
    assert pause(throttle, clock) == 30
