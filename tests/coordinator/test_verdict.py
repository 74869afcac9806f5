"""What a verdict says of the ranks that left no outcome."""

import pytest

from jobs import files, outcome
from jobs.files import AttemptDir
from jobs.outcome import Outcome
from jobs.spec import Cause, Result
from stx.coordinator.verdict import publish_verdict
from stx.endings import ending


@pytest.fixture
def attempt(tmp_path):
    path = tmp_path / "001"
    path.mkdir()
    return AttemptDir(path)


def test_a_silent_rank_is_lost_unless_another_says_worse(attempt):
    outcome.publish(attempt, Outcome(0, Result.YIELDED))
    publish_verdict(attempt, ranks=2, cause="LOST", message="gone", experiment="a")
    assert ending(attempt, number=1, ranks=2).cause == "LOST"


def test_an_out_of_memory_rank_explains_the_silent_one(attempt):
    outcome.publish(attempt, Outcome(1, Result.FAILED, Cause.OOM))
    publish_verdict(attempt, ranks=2, cause="LOST", message="gone", experiment="a")
    assert ending(attempt, number=1, ranks=2).cause == "OOM"


def test_one_that_was_asked_to_leave_and_left_no_word_yielded(attempt):
    files.publish(attempt.stop, b"{}")
    publish_verdict(attempt, ranks=1, cause="LOST", message="gone", experiment="a")
    assert ending(attempt, number=1, ranks=1).result == "YIELDED"


def test_a_hang_is_a_hang_although_its_end_was_asked_for(attempt):
    files.publish(attempt.stop, b"{}")
    publish_verdict(attempt, ranks=1, cause="HANG", message="no heartbeat", experiment="a")
    assert ending(attempt, number=1, ranks=1).cause == "HANG"


def test_outcomes_that_arrive_late_beat_the_verdict_and_prevent_one(attempt):
    publish_verdict(attempt, ranks=1, cause="LOST", message="gone", experiment="a")
    outcome.publish(attempt, Outcome(0, Result.COMPLETED))
    assert ending(attempt, number=1, ranks=1).result == "COMPLETED"
    attempt.verdict.unlink()
    publish_verdict(attempt, ranks=1, cause="LOST", message="gone", experiment="a")
    assert not attempt.verdict.exists()
