"""What became of attempts, told from the files that they left."""

import os
from pathlib import Path

import pytest

from jobs import outcome
from jobs.outcome import Outcome
from jobs.spec import Cause, Result
from stx import records
from stx.coordinator import earlier
from stx.coordinator.earlier import Earlier
from stx.paths import StageDir, Store


class History:
    """Attempts of one stage, of jobs of an hour with a lead of 60 s."""

    def __init__(self, stage: StageDir) -> None:
        self.stage = stage

    def attempt(self, number: int, *said: Outcome, launcher: str = "slurm:x", took_s: float = 100.0, ranks: int = 1):
        attempt = self.stage.attempt(number)
        attempt.path.mkdir(parents=True)
        size = {"ranks_per_node": ranks, "time_s": 3600.0}
        records.write(attempt.intent, {"launcher": launcher, "job": {"resources": size, "stop_lead_s": 60.0}})
        attempt.started.write_text("{}")
        for one in said:
            outcome.publish(attempt, one)
            began = attempt.started.stat().st_mtime
            os.utime(attempt.outcome(one.rank), (began + took_s, began + took_s))
        return attempt

    def verdict(self, number: int, cause: Cause) -> None:
        attempt = self.attempt(number)
        records.write(attempt.verdict, {"result": "FAILED", "cause": cause.value, "message": ""})


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(Store(tmp_path).stage("train", "a" * 64))


YIELDED = Outcome(0, Result.YIELDED)


def test_a_yield_has_its_reason(history: History) -> None:
    history.attempt(1, YIELDED)
    history.attempt(2, YIELDED).stop.write_text("{}")
    history.attempt(3, YIELDED, took_s=3500.0)
    history.attempt(4, YIELDED, launcher="local:x")
    history.attempt(5)
    history.attempt(6, Outcome(0, Result.COMPLETED))
    words = [earlier.ended_for(history.stage.attempt(number), number=number) for number in range(1, 7)]
    assert words == ["preempted", "stopped", "time limit", "yielded", None, ""]


def test_causes_are_counted_and_a_live_attempt_is_none_of_them(history: History) -> None:
    history.attempt(1, YIELDED)
    history.verdict(2, Cause.PREEMPT)
    history.verdict(3, Cause.NODE)
    history.attempt(4, Outcome(0, Result.FAILED, Cause.USER))
    history.attempt(5)
    assert Earlier().causes(history.stage) == {"preempted": 2, "NODE": 1, "USER": 1}


def test_an_attempt_that_is_over_is_looked_at_once(history: History) -> None:
    known, live = Earlier(), history.attempt(1)
    assert known.causes(history.stage) == {}
    outcome.publish(live, YIELDED)
    assert known.causes(history.stage) == {"preempted": 1}
    live.outcome(0).unlink()
    assert known.causes(history.stage) == {"preempted": 1}


def test_what_cannot_be_read_says_nothing(history: History) -> None:
    history.verdict(1, Cause.NODE)
    history.attempt(2).intent.write_text("{")
    assert Earlier().causes(history.stage) == {"NODE": 1}


def test_the_log_to_read_is_that_of_the_rank_that_failed_by_itself(history: History) -> None:
    said = [
        Outcome(0, Result.FAILED, Cause.OOM, "ended because rank 1 failed: no memory"),
        Outcome(1, Result.FAILED, Cause.OOM, "no memory"),
    ]
    attempt = history.attempt(1, *said, ranks=2)
    for rank in (0, 1):
        attempt.log(rank).write_text(f"rank {rank}\nno memory\n\n")
    assert earlier.log_of(attempt) == attempt.log(1)
    assert earlier.last_lines(attempt.log(1), 1) == ["no memory"]


def test_where_no_rank_started_the_log_is_that_of_the_newest_job(history: History) -> None:
    attempt = history.attempt(1, Outcome(0, Result.FAILED, Cause.SETUP))
    assert earlier.log_of(attempt) is None
    attempt.scheduler_logs.mkdir()
    for age, name in ((2.0, "9_0_log.out"), (1.0, "10_0_log.out"), (0.0, "10_1_log.out")):
        path = attempt.scheduler_logs / name
        path.write_text("srun: error\n")
        os.utime(path, (1000.0 - age, 1000.0 - age))
    assert earlier.log_of(attempt) == attempt.scheduler_logs / "10_0_log.out"
    assert earlier.supervisor_log(attempt, rank=1) == attempt.scheduler_logs / "10_1_log.out"
    attempt.supervisor_log.write_text("")
    assert earlier.supervisor_log(attempt) == attempt.supervisor_log
