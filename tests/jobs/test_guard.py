"""The supervisor's look at its ranks, while the store stalls and after."""

import os
import threading
import time
from pathlib import Path

from jobs import guard, hangs
from jobs.files import AttemptDir
from jobs.guard import Guard
from jobs.hangs import Standstill

MANY = 1000.0


def test_a_look_never_waits_for_the_store_and_the_hang_is_seen_when_it_answers(tmp_path: Path, monkeypatch) -> None:
    """The rank's watchdog never ticks; the writes of the guard are held up."""
    answers = threading.Event()

    def write(folder: Path) -> None:
        answers.wait(60)

    monkeypatch.setattr(hangs, "_write", write)
    monkeypatch.setattr(hangs, "GRACE_S", 0.2)
    monkeypatch.setattr(hangs, "QUICK_S", 0.1)
    monkeypatch.setattr(guard, "LOOK_S", 0.02)
    looks = Guard(AttemptDir(tmp_path), ranks=1, start_limit_s=0.3)
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        began = time.monotonic()
        assert looks.look({0: os.getpid()}) is None, "while the store stalls nobody is taken for hung"
        assert time.monotonic() - began < 1.0
        time.sleep(0.01)
    answers.set()
    until, hang = time.monotonic() + 30, None
    while hang is None and time.monotonic() < until:
        hang = looks.look({0: os.getpid()})
        time.sleep(0.01)
    assert hang is not None
    assert "in phase start for 0.3 s" in hang.message


def test_looks_while_a_write_is_under_way_count_for_nothing_and_quick_writes_prove_what_came_before(
    tmp_path: Path, monkeypatch
) -> None:
    answers, begun = threading.Event(), []

    def write(folder: Path) -> None:
        begun.append(threading.current_thread())
        answers.wait(60)

    monkeypatch.setattr(hangs, "_write", write)
    monkeypatch.setattr(hangs, "QUICK_S", MANY)
    still = Standstill(tmp_path, waits=False)
    for _ in range(10):
        still.add(2.0, limit=100.0)
    assert still.seconds == 0.0
    answers.set()
    begun[0].join(60)
    assert len(begun) == 1, "one write at a time"
    still.add(2.0, limit=100.0)
    assert still.seconds == 6.0, "three looks made it due"
    still.reset()
    assert still.seconds == 0.0
