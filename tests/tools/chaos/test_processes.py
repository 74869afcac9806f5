"""Processes of a run are those that were started with its mark, and no others."""

import os
import signal
import subprocess
import sys

import pytest

from tools.chaos import processes
from tools.chaos.processes import MARK, end_all, members, role_of

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def marked(tmp_path):
    child = subprocess.Popen(SLEEP, env={**os.environ, MARK: str(tmp_path)}, start_new_session=True)
    yield tmp_path, child
    child.kill()
    child.wait()


def test_what_bears_the_mark_is_found_and_ended_even_when_it_is_stopped(marked):
    mark, child = marked
    stranger = subprocess.Popen(SLEEP, env={**os.environ, MARK: f"{mark}-other"})
    try:
        assert [member.pid for member in members(mark)] == [child.pid]
        os.kill(child.pid, signal.SIGSTOP)
        assert end_all(mark) == 1
        assert child.wait(timeout=10) == -signal.SIGKILL
        assert members(mark) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_pid_that_was_given_to_another_process_is_left_alone(marked):
    mark, child = marked
    (member,) = members(mark)
    assert not processes.Member(member.pid, member.start_time - 1, "rank", "").send(signal.SIGKILL)
    assert child.poll() is None


@pytest.mark.parametrize(
    ("line", "role"),
    [
        ("python -m stx.worker run /s/attempts/001", "rank"),
        ("python -P -m jobs.exec --slots /t /s/attempts/001", "supervisor"),
        ("python -m stx.cli submit e.yaml --cluster c", "coordinator"),
        ("python -m stx.cli report e", "other"),
        ("python -m stx.worker check {}", "other"),
    ],
)
def test_roles_are_told_by_the_command_line(line, role):
    assert role_of([word.encode() for word in line.split()]) == role
