"""Numbered leases: simulated holders with clocks of their own, and real processes that race and die."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs import processes
from stx import records
from stx.coordinator import lease
from stx.coordinator.lease import Observer, acquire, holder, take
from stx.errors import LeaseHeld
from stx.paths import ExperimentDir


def no_sleep(seconds: float) -> None:
    raise AssertionError("nothing to wait for")


@pytest.fixture
def experiment(tmp_path: Path) -> ExperimentDir:
    return ExperimentDir(tmp_path / "experiment")


def test_the_first_lease_is_one_and_each_next_is_one_more(experiment):
    for token in (1, 2, 3):
        held = acquire(experiment, lease_s=20, sleep=no_sleep)
        assert held.token == token
        assert holder(experiment).token == token
        assert holder(experiment).here
        held.release()
        assert holder(experiment) is None


def test_a_live_holder_on_this_machine_is_not_overtaken(experiment):
    held = acquire(experiment, lease_s=0.5)
    with pytest.raises(LeaseHeld, match="another coordinator drives"):
        acquire(experiment, lease_s=0.5, sleep=lambda seconds: (time.sleep(0.2), held.hold()))


def test_a_holder_whose_process_is_gone_is_followed_at_once(experiment):
    me = processes.me()
    dead = processes.unique_id(me._replace(start_time=me.start_time - 1))
    acquire(experiment, lease_s=20, me=dead)
    assert holder(experiment) is None
    assert acquire(experiment, lease_s=20, sleep=no_sleep).token == 2


def test_a_holder_elsewhere_expires_after_its_contents_stood_still_on_the_observers_clock(experiment):
    now = 0.0
    acquire(experiment, lease_s=20, me="1:2:boot:elsewhere")
    assert not holder(experiment).here
    observer = Observer(experiment, clock=lambda: now)
    assert not observer.expired()
    now = 19.9
    assert not observer.expired()
    now = 20.0
    assert observer.expired()


def test_a_renewal_begins_the_wait_anew(experiment):
    now = 0.0
    held = acquire(experiment, lease_s=20, me="1:2:boot:elsewhere", clock=lambda: now)
    observer = Observer(experiment, clock=lambda: now)
    for _ in range(10):
        observer.expired()
        now += 15
        held.hold()
        assert not observer.expired()


def test_a_holder_that_sees_a_higher_number_stops_writing(experiment):
    old = acquire(experiment, lease_s=20, me="1:2:boot:elsewhere")
    take(experiment, token=2, lease_s=20, clock=time.monotonic, me="3:4:boot:elsewhere")
    before = records.read(experiment.lease / "1")
    with pytest.raises(LeaseHeld, match="took over"):
        old.hold()
    old.release()
    assert records.read(experiment.lease / "1") == before


def test_a_number_is_taken_once(experiment):
    acquire(experiment, lease_s=20, me="1:2:boot:elsewhere")
    assert take(experiment, token=2, lease_s=20, clock=time.monotonic, me="3:4:boot:x") is not None
    assert take(experiment, token=2, lease_s=20, clock=time.monotonic, me="5:6:boot:x") is None


def test_one_that_came_in_between_looking_and_taking_keeps_the_lease(experiment):
    acquire(experiment, lease_s=20, me="1:2:boot:elsewhere")
    between = []

    def is_gone(process):
        """Both see that the first holder is gone; the other one is quicker."""
        if not between:
            between.append(take(experiment, token=2, lease_s=20, clock=time.monotonic, me="3:4:boot:elsewhere"))
        return process.startswith("1:")

    with pytest.raises(LeaseHeld):
        acquire(experiment, lease_s=20, is_gone=is_gone)
    between[0].hold()


MOVES = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["look", "take", "hold", "die", "release"]), st.floats(0, 15)),
    max_size=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(moves=MOVES)
def test_never_do_two_hold_one_token_and_only_the_highest_passes_its_fence(tmp_path_factory, moves):
    """Three machines, each with a clock of its own, interleaved between looking, taking and holding."""
    experiment = ExperimentDir(tmp_path_factory.mktemp("lease"))
    experiment.lease.mkdir()
    clocks = [0.0, 1e6, -50.0]
    times = [partial(clocks.__getitem__, one) for one in range(3)]
    observers = [Observer(experiment, clock=time_of) for time_of in times]
    free: list[int | None] = [None] * 3
    held: dict[int, lease.Lease] = {}
    given_out: list[int] = []
    for who, what, seconds in moves:
        clocks[:] = [clock + seconds for clock in clocks]
        if what == "look":
            free[who] = observers[who].free()
        elif what == "take" and free[who] is not None:
            mine = take(experiment, token=free[who] + 1, lease_s=10, clock=times[who], me=f"{who}:1:b:m{who}")
            if mine is not None:
                given_out.append(mine.token)
                held[who] = mine
        elif what == "hold" and who in held:
            try:
                held[who].hold()
            except LeaseHeld:
                del held[who]
        elif what == "release" and who in held:
            held.pop(who).release()
        elif what == "die":
            held.pop(who, None)
        assert len(given_out) == len(set(given_out)), "a token was given twice"
        assert given_out == sorted(given_out)
        passing = [one for one in held.values() if lease.highest(experiment) == one.token]
        assert len(passing) <= 1


RACER = """
import sys, time
from pathlib import Path
from stx.coordinator import lease
from stx.errors import LeaseHeld
from stx.paths import ExperimentDir

experiment, rounds = ExperimentDir(Path(sys.argv[1])), int(sys.argv[2])
for _ in range(rounds):
    try:
        held = lease.acquire(experiment, lease_s=5, sleep=lambda seconds: time.sleep(0.001))
    except LeaseHeld:
        continue
    begin = time.monotonic()
    held.hold()
    time.sleep(0.0005)
    try:
        held.hold()
    except LeaseHeld:
        print("overtaken", held.token, flush=True)
        continue
    print(held.token, begin, time.monotonic(), flush=True)
    held.release()
"""


def race(experiment: ExperimentDir, *, racers: int, rounds: int) -> list[tuple[int, float, float]]:
    command = [sys.executable, "-c", RACER, str(experiment.path), str(rounds)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(racers)]
    lines = [line.split() for process in running for line in process.communicate(timeout=120)[0].splitlines()]
    assert all(process.returncode == 0 for process in running)
    assert not [line for line in lines if line[0] == "overtaken"]
    return sorted((int(token), float(begin), float(end)) for token, begin, end in lines)


def test_racing_processes_hold_one_after_the_other(experiment):
    held = race(experiment, racers=4, rounds=60)
    tokens = [token for token, _, _ in held]
    assert len(tokens) == len(set(tokens))
    for (_, _, end), (_, begin, _) in pairwise(held):
        assert end <= begin, "two processes held the lease at one moment"


def test_a_killed_process_is_followed_at_once_and_a_stopped_one_is_not(experiment):
    code = "import sys, time; from pathlib import Path\n"
    code += "from stx.coordinator import lease; from stx.paths import ExperimentDir\n"
    code += "lease.acquire(ExperimentDir(Path(sys.argv[1])), lease_s=60); print('held', flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code, str(experiment.path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    os.kill(child.pid, signal.SIGSTOP)
    assert holder(experiment).pid == child.pid
    assert not Observer(experiment).expired()
    child.kill()
    child.wait()
    child.stdout.close()
    begin = time.monotonic()
    assert acquire(experiment, lease_s=60).token == 2
    assert time.monotonic() - begin < 5


def test_a_lease_file_says_who_and_nothing_secret(experiment):
    acquire(experiment, lease_s=20).release()
    record = json.loads((experiment.lease / "1").read_bytes())
    assert set(record) == {"process", "host", "beat", "lease_s", "released", "code"}
