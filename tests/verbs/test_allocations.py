"""When a coordinator asks for a Ray cluster and for the next one, and when it ends it; made-up clusters and clock."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.launchers.ray.up.folder import Asked
from stx.coordinator.state import Status
from stx.errors import BackendError
from stx.verbs.allocations import Allocations
from stx.verbs.own_ray import Look, Standing


@dataclass
class Own:
    """What OwnRay tells and does."""

    standing: Standing = Standing.NONE
    number: int = 0
    never_up: bool = False
    asked_by: str = "mine"
    jobs: int = 0
    refuse: BackendError | None = None
    asks: int = 0
    ended: list[str] = field(default_factory=list)

    def look(self) -> Look:
        asked = Asked(name="r", nodes=1, record="/r", token="/t", experiment=self.asked_by)
        return Look(standing=self.standing, number=self.number, asked=asked, never_up=self.never_up, words="it ended")

    def up(self, after: int, *, experiment: str, code: Path) -> None:
        self.asks += 1
        if self.refuse is not None:
            raise self.refuse
        self.number, self.standing = after + 1, Standing.WAITS

    def others(self, look: Look) -> int:
        return self.jobs

    def end(self, look: Look, words: str) -> None:
        self.ended.append(words)


class Driven:
    """One experiment, looked at every ten seconds."""

    def __init__(self) -> None:
        self.own, self.now = Own(), 1000.0
        self.clusters = Allocations(
            self.own, experiment="mine", most=10, code=Path("/c"), every_s=1.0, clock=lambda: self.now
        )

    def ticks(self, count: int, *statuses: Status) -> None:
        state = SimpleNamespace(finished=False, stopping=False, counts=dict.fromkeys(statuses, 1))
        for _ in range(count):
            self.clusters.tick(state)
            self.now += 10.0


@pytest.fixture
def driven() -> Driven:
    return Driven()


def later(words: str) -> BackendError:
    error = BackendError(words)
    error.later = True
    return error


def test_none_is_asked_for_while_all_wait_for_what_others_compute(driven):
    driven.ticks(5, Status.WAITING, Status.ELSEWHERE, Status.DONE)
    assert driven.own.asks == 0
    driven.ticks(1, Status.WAITING, Status.READY)
    assert driven.own.asks == 1


def test_one_that_is_refused_for_now_is_asked_for_again_less_and_less_often_and_blames_nobody(driven):
    driven.own.refuse = later("you have as many jobs as you may")
    driven.ticks(100, Status.READY)
    assert 4 <= driven.own.asks <= 6, "1,000 s: at once, then after 30, 60, 120, 240 and 480 s"
    driven.own.refuse = None
    driven.ticks(60, Status.READY)
    assert driven.own.standing is Standing.WAITS


def test_one_that_somebody_else_asked_for_at_the_same_moment_is_used(driven):
    driven.own.refuse = later("somebody else brings it up at this moment")
    driven.ticks(1, Status.READY)
    driven.own.standing, driven.own.number = Standing.STARTS, 1
    driven.ticks(20, Status.READY)
    assert driven.own.asks == 1


def test_two_in_a_row_that_never_came_up_are_an_error(driven):
    driven.ticks(1, Status.READY)
    driven.own.standing, driven.own.never_up = Standing.OVER, True
    driven.ticks(2, Status.READY)
    assert driven.own.asks == 2
    driven.own.standing = Standing.OVER
    with pytest.raises(BackendError, match="does not come up: it ended"):
        driven.ticks(5, Status.READY)


@pytest.mark.parametrize(
    ("asked_by", "jobs", "ends"),
    [("mine", 0, True), ("mine", 2, False), ("another", 0, True), ("another", 1, False), ("", 0, False)],
)
def test_the_last_whose_jobs_are_there_ends_it_but_not_one_of_a_person(driven, asked_by, jobs, ends):
    own = driven.own
    own.standing, own.asked_by, own.jobs = Standing.UP, asked_by, jobs
    driven.clusters.close()
    assert bool(own.ended) is ends
