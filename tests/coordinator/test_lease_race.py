"""Real processes that compete for one lease for some seconds, and are stopped, continued and killed at any moment: no
number is given twice, and no holder passes its fence once another one holds a higher number.
"""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from stx.coordinator import lease
from stx.coordinator.lease import acquire
from stx.errors import LeaseHeld
from stx.paths import ExperimentDir

LEASE_S = 0.2  # of the test, so that stopped holders are overtaken


def compete(experiment: ExperimentDir, log: Path, name: int) -> None:
    """Take the lease, pass the fence a few times, give it back; again and again. Machines differ, so that nobody can
    see whether another's process still lives.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(what: str, token: int, begin: float) -> None:
        os.write(descriptor, f"{what} {token} {begin!r} {time.monotonic()!r}\n".encode())

    life = 0
    while True:
        life += 1
        begin = time.monotonic()
        try:
            held = acquire(experiment, lease_s=LEASE_S, me=f"{os.getpid()}:{life}:boot:machine{name}", sleep=nap)
        except LeaseHeld:
            continue
        note("took", held.token, begin)
        for _ in range(5):
            begin = time.monotonic()
            try:
                held.hold()
            except LeaseHeld:
                break
            note("held", held.token, begin)
            time.sleep(0.002)
        held.release()


def nap(seconds: float) -> None:
    time.sleep(0.005)


def harass(experiment: ExperimentDir, running: list, start, *, times: int, seed: int) -> None:
    """Stop, continue and kill; mostly whoever holds the lease just then, and for longer than it lasts."""
    chance = random.Random(seed)
    for _ in range(times):
        time.sleep(chance.uniform(0.005, 0.03))
        now = lease.holder(experiment)
        holding = [place for place, process in enumerate(running) if now and process.pid == now.pid]
        place = holding[0] if holding and chance.random() < 0.7 else chance.randrange(len(running))
        os.kill(running[place].pid, signal.SIGSTOP)
        time.sleep(chance.choice([0.0, 2 * LEASE_S]))
        if chance.random() < 0.3:
            running[place].kill()
            running[place].join()
            running[place] = start(place)
        else:
            os.kill(running[place].pid, signal.SIGCONT)


def race(folder: Path, *, racers: int, times: int, seed: int) -> list[tuple[str, int, float, float]]:
    experiment = ExperimentDir(folder / "experiment")
    experiment.lease.mkdir(parents=True)
    fork = multiprocessing.get_context("fork")

    def start(place: int):
        process = fork.Process(target=compete, args=(experiment, folder / f"log-{place}", place), daemon=True)
        process.start()
        return process

    running = [start(place) for place in range(racers)]
    try:
        harass(experiment, running, start, times=times, seed=seed)
    finally:
        for process in running:
            process.kill()
            process.join()
    lines = [line.split() for log in folder.glob("log-*") for line in log.read_text().splitlines()]
    return sorted((what, int(token), float(begin), float(end)) for what, token, begin, end in lines)


def check(told: list[tuple[str, int, float, float]]) -> None:
    taken = {token: end for what, token, _, end in told if what == "took"}
    assert len(taken) == sum(what == "took" for what, *_ in told), "a number was given twice"
    assert max(taken) > 3, "they raced"
    for what, token, begin, _ in told:
        if what == "held":
            higher = [end for other, end in taken.items() if other > token]
            assert not higher or begin < min(higher), f"{token} passed its fence after a higher number was held"


def test_racing_processes_that_are_stopped_and_killed_never_hold_together(tmp_path):
    check(race(tmp_path, racers=4, times=30, seed=random.randrange(10**6)))


@pytest.mark.full
@pytest.mark.slow
def test_many_racing_processes_never_hold_together_for_a_long_time(tmp_path):
    check(race(tmp_path, racers=8, times=500, seed=random.randrange(10**6)))


def test_a_racer_whose_fence_does_nothing_is_noticed(tmp_path, monkeypatch):
    """The race can fail: a holder that never looks passes its fence although it was overtaken."""

    def blind(self) -> None:
        pass

    monkeypatch.setattr(lease.Lease, "hold", blind)
    with pytest.raises(AssertionError, match="passed its fence"):
        for seed in range(5):
            folder = tmp_path / str(seed)
            folder.mkdir()
            check(race(folder, racers=4, times=15, seed=seed))
