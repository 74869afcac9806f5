"""The watchdog in a rank alone; what it does together with a supervisor is in test_hangs.py."""

from pathlib import Path

import pytest

from jobs import contract, outcome
from jobs.files import AttemptDir
from jobs.spec import Cause, Result
from tests.jobs.test_runtime import said, start

WATCHED = """
from jobs import watchdog
runtime.install()
folder = runtime.attempt_dir()
heart = runtime.Heart(folder)
watchdog.start(folder, heart, limits={"step": 0.2, "other": 60.0}, every_s=0.02)
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_a_heart_that_stands_still_ends_its_rank_as_a_hang_with_all_stacks(tmp_path: Path, rank: int) -> None:
    program = f"{WATCHED}heart.beat('step')\ndef stuck(): time.sleep(60)\nstuck()"
    process = start(tmp_path, program, env={"RANK": str(rank)})
    process.communicate(timeout=contract.PATIENCE_S)
    word = outcome.read(AttemptDir(tmp_path), rank)
    assert process.returncode == 1
    assert word is not None
    assert (word.result, word.cause) == (Result.FAILED, Cause.HANG)
    stacks = AttemptDir(tmp_path).stacks(rank)
    assert str(stacks) in word.message
    assert "in stuck" in stacks.read_text()


def test_a_heart_that_beats_or_is_in_a_patient_phase_is_let_live(tmp_path: Path) -> None:
    program = f"""{WATCHED}
for _ in range(30):
    heart.beat("step")
    time.sleep(0.02)
heart.beat("save")
time.sleep(0.5)
print("well")
"""
    assert said(start(tmp_path, program)).split() == ["well"]
