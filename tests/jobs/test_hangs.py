"""Real hangs in real processes: every one ends as a HANG with the stacks of all ranks, and nothing healthy is ended.

All jobs run at the same time, so the whole file takes as long as the slowest of them.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jobs import contract, hangs, outcome, processes, supervisor
from jobs.contract import until
from jobs.files import AttemptDir
from jobs.hangs import GRACE_S, Board, Line, Standstill
from jobs.spec import Cause, Result
from tests.jobs.programs import ROOT, pids, prepare, run, start, the_outcome

LIMIT_S = 2.0
FEW_SECONDS = GRACE_S + 15.0  # the supervisor's grace, the stacks, TERM and KILL, and a loaded machine
pytestmark = pytest.mark.slow

PRELUDE = f"""
import ctypes, os, signal, sys, threading, time
from jobs import files, hangs, outcome, runtime, watchdog
runtime.install()
folder, rank = runtime.attempt_dir(), runtime.rank()
attempt, heart = files.AttemptDir(folder), runtime.Heart(folder)
watched = lambda: watchdog.start(folder, heart, limits={{"step": {LIMIT_S}, "other": 60.0}}, every_s=0.1)
def done(): runtime.finish(folder, rank, runtime.Result.COMPLETED); sys.exit(0)
def healthy(seconds=3600):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        heart.beat("step"); time.sleep(0.02)
def stuck_in_lock(): lock = threading.Lock(); lock.acquire(); lock.acquire()
def stuck_in_c(): ctypes.PyDLL(None).sleep(3600)
def waits_for_the_other():
    read, write = os.pipe(); os.read(read, 1)
def stop_myself(): heart.beat("step"); time.sleep(0.5); os.kill(os.getpid(), signal.SIGSTOP)
"""

# What rank 0 and what rank 1 do once they are watched.
HANGS = {
    "lock": ("heart.beat('step'); waits_for_the_other()", "heart.beat('step'); stuck_in_lock()"),
    "interpreter": ("healthy()", "heart.beat('step'); time.sleep(0.3); stuck_in_c()"),
    "stopped": ("healthy()", "stop_myself(); healthy()"),
    "all stopped": ("stop_myself(); healthy()", "stop_myself(); healthy()"),
}


@dataclass
class Running:
    """A job of this file, its supervisor, and when it ended."""

    attempt: AttemptDir
    seconds: float = 0.0
    began: float = field(default_factory=time.monotonic)
    process: "subprocess.Popen[bytes]" = field(init=False)

    def __post_init__(self) -> None:
        self.process = start(self.attempt)

    def wait(self) -> int:
        code = self.process.wait(contract.PATIENCE_S)
        self.seconds = self.seconds or time.monotonic() - self.began
        return code


@pytest.fixture(scope="module")
def jobs_of_hangs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Running]]:
    """One job for every way to hang, all ended."""
    running = {}
    for name, (first, second) in HANGS.items():
        folder = tmp_path_factory.mktemp(name.replace(" ", "-"))
        program = f"{PRELUDE}watched()\nif rank == 0: {first}\nelse: {second}"
        running[name] = Running(prepare(folder, program, ranks=2))
    slowest = time.monotonic() + contract.PATIENCE_S
    while any(one.process.poll() is None for one in running.values()) and time.monotonic() < slowest:
        for one in running.values():
            if one.process.poll() is not None:
                one.wait()
        time.sleep(0.05)
    yield running
    for one in running.values():
        one.process.kill()


@pytest.mark.parametrize("name", list(HANGS))
def test_a_hang_ends_the_group_within_the_limit_and_a_few_seconds(jobs_of_hangs, name: str) -> None:
    one = jobs_of_hangs[name]
    assert one.wait() == 1
    assert LIMIT_S <= one.seconds < LIMIT_S + FEW_SECONDS
    words = [the_outcome(one.attempt, rank) for rank in range(2)]
    assert Cause.HANG in [word.cause for word in words]
    message = next(word.message for word in words if word.cause is Cause.HANG)
    assert "in phase step for 2 s, its limit (hang_after_s.step)" in message
    assert not [pid for pid in pids(one.attempt) if processes.look(pid)]


@pytest.mark.parametrize(
    ("name", "rank", "function"),
    [
        ("lock", 0, "waits_for_the_other"),
        ("lock", 1, "stuck_in_lock"),
        ("interpreter", 0, "healthy"),
        ("interpreter", 1, "stuck_in_c"),
        ("stopped", 0, "healthy"),
        # Continued for its stacks, a rank may have left the function by then.
        ("stopped", 1, "(stop_myself|healthy)"),
        ("all stopped", 0, "(stop_myself|healthy)"),
        ("all stopped", 1, "(stop_myself|healthy)"),
    ],
)
def test_the_stacks_of_every_rank_name_the_function_it_is_in(jobs_of_hangs, name: str, rank: int, function: str):
    assert re.search(f"in {function}", jobs_of_hangs[name].attempt.stacks(rank).read_text())


def test_a_rank_that_was_stopped_is_said_to_be(jobs_of_hangs) -> None:
    assert "it is stopped (SIGSTOP)" in the_outcome(jobs_of_hangs["stopped"].attempt, 1).message
    assert "state T" in jobs_of_hangs["stopped"].attempt.stacks(1).read_text()


def test_a_rank_that_never_begins_to_watch_has_the_limit_of_a_start(tmp_path: Path) -> None:
    attempt = prepare(tmp_path, f"{PRELUDE}stuck_in_lock()", start_limit_s=1.0)
    assert run(attempt) == 1
    word = the_outcome(attempt)
    assert word.cause is Cause.HANG
    assert "in phase start for 1 s" in word.message
    assert "in stuck_in_lock" in attempt.stacks(0).read_text()


def test_ranks_that_have_no_watchdog_are_not_judged(tmp_path: Path) -> None:
    attempt = prepare(tmp_path, f"{PRELUDE}time.sleep({GRACE_S + 4}); done()")
    assert run(attempt) == 0
    assert the_outcome(attempt).result is Result.COMPLETED


def test_who_hangs_after_a_good_outcome_is_ended_and_the_others_go_on(tmp_path: Path) -> None:
    program = (
        f"{PRELUDE}watched(); heart.beat('step')\nif rank == 0: runtime.finish(folder, 0, runtime.Result.COMPLETED)"
    )
    program += "; time.sleep(0.5); stuck_in_c()\nhealthy(12); done()"
    attempt = prepare(tmp_path, program, ranks=2)
    process = start(attempt)
    assert process.wait(contract.PATIENCE_S) == 0
    assert [the_outcome(attempt, rank).result for rank in range(2)] == [Result.COMPLETED] * 2
    assert "hung: rank 0" in attempt.supervisor_log.read_text()


@pytest.mark.parametrize("whole_session", [False, True])
def test_what_was_stopped_for_longer_than_its_limit_and_continued_is_let_live(
    tmp_path: Path, whole_session: bool
) -> None:
    """A rank alone for less than its supervisor's patience; supervisor and rank together for as long as you like."""
    attempt = prepare(tmp_path, f"{PRELUDE}watched(); healthy(4); done()")
    process = start(attempt)
    until(lambda: attempt.heartbeat.exists(), "the rank works")
    targets = [*pids(attempt), process.pid] if whole_session else pids(attempt)
    for pid in reversed(targets):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(LIMIT_S + (GRACE_S + 3.0 if whole_session else 1.5))
    for pid in targets:
        os.kill(pid, signal.SIGCONT)
    assert process.wait(contract.PATIENCE_S) == 0
    assert the_outcome(attempt).result is Result.COMPLETED


STALLING = """
import os, time
from pathlib import Path
real = os.fsync
def fsync(descriptor):
    while Path(os.environ["STALL"]).exists():
        time.sleep(0.05)
    real(descriptor)
os.fsync = fsync
"""


def test_a_store_that_stalls_for_longer_than_the_limits_ends_nothing(tmp_path: Path) -> None:
    """Rank 0 is stuck in a save, rank 1 waits for it; the supervisor meets the stall, too."""
    site, stall = tmp_path / "site", tmp_path / "stall"
    site.mkdir()
    (site / "sitecustomize.py").write_text(STALLING)
    store = tmp_path / "store"
    store.mkdir()
    program = f"""{PRELUDE}watched()
saved, stall = attempt.path / "saved", os.environ["STALL"]
healthy(0.5)
if rank == 0:
    open(stall, "w").close()
    (attempt.path / "stalled").touch()
    files.write(saved, b"all")
while not saved.exists():
    if runtime.stop_requested(): (attempt.path / "asked").touch()
    time.sleep(0.05)
healthy(1); done()
"""
    env = {"PYTHONPATH": os.pathsep.join([str(site), ROOT]), "STALL": str(stall)}
    attempt = prepare(store, program, ranks=2, env=env)
    process = start(attempt, env=env)
    until((attempt.path / "stalled").exists, "the store stalls")
    time.sleep(LIMIT_S + GRACE_S + 5.0)
    assert process.poll() is None
    assert not attempt.hang.exists()
    process.send_signal(signal.SIGUSR2)
    until((attempt.path / "asked").exists, "the supervisor, which tries the store, forwards signals all the same")
    stall.unlink()
    assert process.wait(contract.PATIENCE_S) == 0
    assert [the_outcome(attempt, rank).result for rank in range(2)] == [Result.COMPLETED] * 2


def test_time_in_which_the_heartbeat_is_being_written_does_not_count(tmp_path: Path) -> None:
    program = f"""{PRELUDE}watched()
real = files.write
def slow(path, data):
    if path.name == "heartbeat.json": time.sleep({LIMIT_S + 2})
    real(path, data)
files.write = slow
heart.beat("step"); done()
"""
    attempt = prepare(tmp_path, program)
    assert run(attempt) == 0
    assert the_outcome(attempt).result is Result.COMPLETED


def test_without_a_supervisor_the_ranks_end_each_other(tmp_path: Path) -> None:
    program = f"{PRELUDE}watched(); heart.beat('step')\nif rank == 0: stuck_in_lock()\nhealthy()"
    attempt = prepare(tmp_path, program, ranks=2)
    process = start(attempt)
    until(lambda: len(pids(attempt)) == 2, "both ranks are alive")
    ranks = pids(attempt)
    process.kill()
    process.wait()
    until(lambda: not [pid for pid in ranks if processes.look(pid)], "both ranks have ended")
    assert [the_outcome(attempt, rank).cause for rank in range(2)] == [Cause.HANG] * 2
    assert "another rank hung: rank 0 made no progress" in the_outcome(attempt, 1).message
    assert "in healthy" in attempt.stacks(1).read_text()


def test_ranks_whose_supervisor_is_gone_are_asked_to_leave_unless_there_is_only_one(tmp_path: Path) -> None:
    program = f"""{PRELUDE}watched()
until = time.monotonic() + 3
while time.monotonic() < until and not runtime.stop_requested(): healthy(0.05)
runtime.finish(folder, rank, runtime.Result.YIELDED if runtime.stop_requested() else runtime.Result.COMPLETED)
"""
    found = {}
    for count in (1, 2):
        (tmp_path / str(count)).mkdir()
        attempt = prepare(tmp_path / str(count), program, ranks=count)
        process = start(attempt)
        until(lambda a=attempt, n=count: len(pids(a)) == n, "the ranks are alive")
        process.kill()
        process.wait()
        until(lambda a=attempt, n=count: len(a.outcomes()) == n, "the ranks have ended")
        found[count] = [the_outcome(attempt, rank).result for rank in range(count)]
    assert found == {1: [Result.COMPLETED], 2: [Result.YIELDED] * 2}


COLLECTIVE = "heart.beat('step')\nif rank: waits_for_the_other()\nhealthy()"
SAVE = "heart.beat('save')\nwhile True: files.write(folder / f'saved-{rank}', bytes(1000000))"


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("doing", [COLLECTIVE, SAVE], ids=["collective", "save"])
def test_a_dead_rank_takes_its_siblings_down_within_seconds(tmp_path: Path, ranks: int, doing: str) -> None:
    attempt = prepare(tmp_path, f"{PRELUDE}watched()\n{doing}", ranks=ranks)
    process = start(attempt)
    until(lambda: len(pids(attempt)) == ranks, "all ranks are alive")
    time.sleep(0.5)
    began = time.monotonic()
    os.kill(pids(attempt)[-1], signal.SIGKILL)
    assert process.wait(contract.PATIENCE_S) == 1
    assert time.monotonic() - began < supervisor.END_GRACE_S + 5.0
    assert not [pid for pid in pids(attempt) if processes.look(pid)]
    assert outcome.read(attempt, ranks - 1) is None, "the coordinator judges: LOST"


def test_the_board_keeps_the_line_of_every_rank() -> None:
    board = Board(Board.create(3))
    lines = [Line(number + 1, 1.5 * number, 600.0, "evaluate") for number in range(3)]
    for number, line in enumerate(lines):
        board.write(number, line)
    assert [board.read(number) for number in range(3)] == lines


def test_a_standstill_counts_what_a_write_has_proven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    still = Standstill(tmp_path, waits=True)
    for _ in range(25):
        still.add(2.0, limit=100.0)
    assert still.seconds == pytest.approx(50.0, abs=5.0)
    monkeypatch.setattr(hangs, "QUICK_S", -1.0)
    monkeypatch.setattr(hangs, "_write", lambda folder: time.sleep(0.05))
    for _ in range(25):
        still.add(0.01, limit=0.1)
    assert still.seconds == pytest.approx(50.0, abs=5.0), "every write took longer than the piece it was to prove"
    still.reset()
    assert still.seconds == 0.0
    assert os.listdir(tmp_path) == []
