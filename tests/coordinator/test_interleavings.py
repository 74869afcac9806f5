"""Any interleaving of three experiments' coordinators on real files, killed and stopped anywhere, with a scheduler that
answers late, twice or not at all, people who give commands, full disks and wall clocks that jump: what interleaved.py
checks holds at every moment, and everything ends.
"""

import time
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stx.coordinator import inbox, journal
from tests.coordinator.interleaved import EXPERIMENTS, Happenings

NAMES = st.sampled_from(EXPERIMENTS)
CALLS = st.integers(0, 80)  # into the system, before it is killed or stopped
NUMBERS = st.integers(0, 40)  # of a job or a stage
ENDS = st.sampled_from(["start", "part", "save", "yield", "idle", "done", "die", "speak", "oom", "user", "node"])
LIES = st.sampled_from(["late", "silent", "unknown", "truth"])
TROUBLE = st.sampled_from([("", False, False), ("Invalid account", False, False), ("", True, False), ("", False, True)])
MOVE = st.one_of(
    st.tuples(st.just("start"), NAMES),
    st.tuples(st.just("start"), NAMES, CALLS),
    st.tuples(st.just("round"), NAMES),
    st.tuples(st.just("round"), NAMES, CALLS),
    st.tuples(st.just("advance"), NAMES, NUMBERS),
    st.tuples(st.just("advance"), NAMES, NUMBERS),
    st.tuples(st.just("sleep"), NAMES, CALLS, NUMBERS),
    st.tuples(st.just("kill"), NAMES),
    st.tuples(st.just("grow"), NAMES),
    st.tuples(st.just("job"), NUMBERS, ENDS),
    st.tuples(st.just("job"), NUMBERS, ENDS),
    st.tuples(st.just("lie"), NUMBERS, LIES),
    st.tuples(st.just("blink_and_look"), NUMBERS),
    st.tuples(st.just("lose_answer"), st.booleans()),
    TROUBLE.map(lambda values: ("trouble", *values)),
    st.tuples(st.just("order"), NAMES, st.sampled_from(["cancel", "retry"]), NUMBERS),
    st.tuples(st.just("deliver_again"), NUMBERS),
    st.tuples(st.just("lose_cluster"), st.sampled_from("ab"), NUMBERS),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 30.0, 3000.0])),
    st.tuples(st.just("jump"), st.sampled_from([0.0, 1e6, -1e6])),
)


@pytest.fixture
def wall(monkeypatch):
    """The wall clock of coordinators and people, which may jump either way."""
    clock = SimpleNamespace(jump=0.0)
    clock.time = lambda: time.time() + clock.jump
    clock.time_ns = lambda: int(clock.time() * 1e9)
    for module in (journal, inbox):
        monkeypatch.setattr(module, "time", clock)
    return clock


def tell(moves, *, new_world, sim, wall) -> None:
    wall.jump = 0.0
    told = Happenings(new_world(), sim)
    for name in EXPERIMENTS[:2]:
        told.start(name)
    for what, *arguments in moves:
        told.remember()
        if what == "jump":
            wall.jump = arguments[0]
        else:
            getattr(told, what)(*arguments)
        told.check()
    told.end()


def checks(examples: int) -> settings:
    # A story takes a tenth of a second, and shrinking one takes minutes: it is shown as it was found.
    phases = (Phase.explicit, Phase.reuse, Phase.generate)
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), phases=phases)


@checks(25)
@given(moves=st.lists(MOVE, min_size=10, max_size=40))
def test_what_must_hold_holds_at_every_moment_and_everything_ends(new_world, sim, wall, moves):
    tell(moves, new_world=new_world, sim=sim, wall=wall)


@pytest.mark.full
@pytest.mark.timeout(3600)
@checks(400)
@given(moves=st.lists(MOVE, min_size=20, max_size=80))
def test_what_must_hold_holds_in_many_long_stories(new_world, sim, wall, moves):
    tell(moves, new_world=new_world, sim=sim, wall=wall)
