"""How ranks combine, and what a verdict says of the silent ones."""

import itertools

import pytest

from jobs import files, outcome
from jobs.files import AttemptDir
from jobs.outcome import Outcome
from jobs.spec import Cause, Result
from stx.coordinator.outcomes import combine, ending, publish_verdict

ORDER = ["OOM", "NO_SPACE", "NAN", "NODE", "SETUP", "USER", "HANG", "LOST", "YIELDED", "COMPLETED"]


def said(rank: int, word: str) -> Outcome:
    if word in Result.__members__:
        return Outcome(rank, Result(word))
    return Outcome(rank, Result.FAILED, Cause(word), f"rank {rank}: {word}")


@pytest.fixture
def attempt(tmp_path):
    path = tmp_path / "001"
    path.mkdir()
    return AttemptDir(path)


def test_the_worst_word_of_any_rank_stands_whoever_says_it():
    for first, second in itertools.product(ORDER, repeat=2):
        result, cause, message = combine([said(0, first), said(1, second)])
        worst = min(first, second, key=ORDER.index)
        assert (cause.value if cause else result.value) == worst
        if cause:
            assert message.endswith(worst)


def test_an_attempt_is_over_when_all_its_ranks_spoke(attempt):
    outcome.publish(attempt, said(0, "COMPLETED"))
    assert ending(attempt, number=1, ranks=2) is None
    outcome.publish(attempt, said(1, "YIELDED"))
    assert ending(attempt, number=1, ranks=2).result == "YIELDED"


def test_a_silent_rank_is_lost_unless_another_says_worse(attempt):
    outcome.publish(attempt, said(0, "YIELDED"))
    publish_verdict(attempt, ranks=2, cause="LOST", message="gone", experiment="a")
    assert ending(attempt, number=1, ranks=2).cause == "LOST"


def test_an_out_of_memory_rank_explains_the_silent_one(attempt):
    outcome.publish(attempt, said(1, "OOM"))
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
    outcome.publish(attempt, said(0, "COMPLETED"))
    assert ending(attempt, number=1, ranks=1).result == "COMPLETED"
    attempt.verdict.unlink()
    publish_verdict(attempt, ranks=1, cause="LOST", message="gone", experiment="a")
    assert not attempt.verdict.exists()
