"""How ranks combine, and when an attempt is over."""

import itertools

import pytest

from jobs import outcome
from jobs.files import AttemptDir
from jobs.outcome import Outcome
from jobs.spec import Cause, Result
from stx import records
from stx.endings import combine, ending, unfinished
from stx.paths import StageDir

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


def test_only_the_last_attempt_can_be_unfinished_and_its_claim_says_whose_it_is(tmp_path):
    stage = StageDir(tmp_path / "train-0123456789ab")
    assert unfinished(stage) is None
    for number in (1, 2):
        attempt = stage.attempt(number)
        attempt.path.mkdir(parents=True)
        job = {"resources": {"nodes": 1, "ranks_per_node": 2}}
        said_of_it = {"experiment": "e", "host": "h", "code": "c", "launcher": "l", "tag": f"t{number}"}
        records.write(attempt.intent, {"number": number, "job": job} | said_of_it)
    claim = unfinished(stage)
    assert (claim.number, claim.experiment, claim.tag) == (2, "e", "t2")
    outcome.publish(stage.attempt(2), said(0, "COMPLETED"))
    assert unfinished(stage) == claim, "one of two ranks spoke"
    outcome.publish(stage.attempt(2), said(1, "OOM"))
    assert unfinished(stage) is None
