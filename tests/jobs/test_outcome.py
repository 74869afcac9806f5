import errno
import json
import os
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


@pytest.mark.parametrize(
    ("number", "cause"),
    [("ENOSPC", Cause.NO_SPACE), ("EDQUOT", Cause.NO_SPACE), ("EIO", Cause.NODE), ("ESTALE", Cause.NODE),
     ("EROFS", Cause.NODE), ("ESHUTDOWN", Cause.NODE), ("ENOENT", None), ("EACCES", None)],
)  # fmt: skip
def test_a_full_disk_is_no_space_and_a_broken_one_the_node(number: str, cause: Cause | None) -> None:
    assert outcome.cause_of(getattr(errno, number)) is cause
    assert outcome.cause_of(None) is None


def test_a_word_is_said_again_while_the_file_system_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome, "SAY_AGAIN_S", (0.0, 0.0, 0.0))
    real, failing = os.link, [errno.EIO, errno.ENOSPC, errno.ESTALE]

    def link(source: Path, target: Path) -> None:
        real(source, target)
        if failing:
            raise OSError(failing.pop(), "made, and then it failed")

    monkeypatch.setattr(os, "link", link)
    outcome.publish(AttemptDir(tmp_path), Outcome(0, Result.COMPLETED))
    assert outcome.read(AttemptDir(tmp_path), 0) == Outcome(0, Result.COMPLETED)


def test_who_may_not_write_is_told_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome, "SAY_AGAIN_S", (1e6,))

    def refused() -> bool:
        raise PermissionError(errno.EACCES, "no")

    with pytest.raises(PermissionError):
        outcome.insist(refused)
