import json
from pathlib import Path

import pytest

from jobs import outcome
from jobs.files import AttemptDir
from jobs.outcome import Outcome
from jobs.spec import Cause, Result


@pytest.mark.parametrize(
    "word",
    [
        Outcome(0, Result.COMPLETED),
        Outcome(7, Result.YIELDED, message="preempted", info={"saved": False}),
        Outcome(1, Result.FAILED, Cause.OOM, "12 GiB"),
    ],
)
def test_an_outcome_reads_back_as_it_was_published(tmp_path: Path, word: Outcome) -> None:
    attempt = AttemptDir(tmp_path)
    assert outcome.publish(attempt, word)
    assert outcome.read(attempt, word.rank) == word


def test_a_later_word_changes_nothing(tmp_path: Path) -> None:
    attempt = AttemptDir(tmp_path)
    assert outcome.publish(attempt, Outcome(0, Result.COMPLETED))
    assert not outcome.publish(attempt, Outcome(0, Result.FAILED, Cause.SETUP))
    assert outcome.read(attempt, 0) == Outcome(0, Result.COMPLETED)


@pytest.mark.parametrize(("result", "cause"), [(Result.FAILED, None), (Result.COMPLETED, Cause.USER)])
def test_a_cause_belongs_to_a_failure(result: Result, cause: Cause | None) -> None:
    with pytest.raises(AssertionError, match="a cause belongs to FAILED"):
        Outcome(0, result, cause)


def test_the_file_is_one_line_of_json() -> None:
    data = Outcome(0, Result.FAILED, Cause.USER, "two\nlines").encode()
    assert data.count(b"\n") == 1
    assert json.loads(data) == {"rank": 0, "result": "FAILED", "cause": "USER", "message": "two\nlines", "info": {}}
