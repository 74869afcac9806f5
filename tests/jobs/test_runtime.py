"""The worker's side, in real processes: started by hand with the signals blocked, as the supervisor starts it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from jobs import contract, outcome, runtime
from jobs.contract import until
from jobs.files import AttemptDir
from jobs.runtime import Cause, Heart, Result

ROOT = str(Path(runtime.__file__).parent.parent)
SIGNALS = {signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM}


def start(folder: Path, program: str, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """A worker of a few lines, with blocked signals."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", f"from jobs import runtime; import os, sys, time\n{program}", *arguments],
            env={**os.environ, "PYTHONPATH": ROOT, "STX_ATTEMPT": str(folder), **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def said(process: subprocess.Popen[str]) -> str:
    """All it printed, once it has ended well."""
    try:
        text = process.communicate(timeout=contract.PATIENCE_S)[0]
    finally:
        process.kill()
    assert process.returncode == 0, text
    return text


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_signal_from_before_install_is_a_request_to_stop_after_it(tmp_path: Path, number: int) -> None:
    program = """
while not (runtime.attempt_dir() / "go").exists():
    time.sleep(0.005)
print(runtime.stop_requested())
runtime.install()
print(runtime.stop_requested())
"""
    process = start(tmp_path, program)
    process.send_signal(number)
    (tmp_path / "go").touch()
    assert said(process).split() == ["False", "True"]


def test_alive_is_there_only_after_install_and_names_the_process(tmp_path: Path) -> None:
    process = start(tmp_path, "print(os.listdir(os.environ['STX_ATTEMPT'])); runtime.install()", env={"RANK": "3"})
    assert said(process).strip() == "[]"
    assert AttemptDir(tmp_path).alive(3).read_text().strip() == str(process.pid)


def test_usr1_prints_all_stacks_and_ends_nothing(tmp_path: Path) -> None:
    program = """
import threading
def wait():
    while not (runtime.attempt_dir() / "go").exists():
        time.sleep(0.005)
threading.Thread(target=wait).start()
runtime.install()
wait()
"""
    process = start(tmp_path, program)
    process.send_signal(signal.SIGUSR1)
    status = Path(f"/proc/{process.pid}/status")
    until(lambda: AttemptDir(tmp_path).alive(0).exists(), "the handlers stand")
    until(lambda: "SigBlk:\t0000000000000000" in status.read_text(), "the signal was delivered")
    (tmp_path / "go").touch()
    assert said(process).count("most recent call first") == 2


def test_a_forked_loader_process_ends_when_it_is_terminated(tmp_path: Path) -> None:
    """Children that inherit the worker's handler could only be killed, and the job would not end."""
    program = """
runtime.install()
pid = os.fork()
if pid == 0:
    time.sleep(3600)
os.kill(pid, 15)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert said(start(tmp_path, program)).strip() == "-15"


def test_a_worker_started_by_hand_has_defaults_and_tells_nobody(tmp_path: Path) -> None:
    program = """
del os.environ["STX_ATTEMPT"]
runtime.install()
print(runtime.rank(), runtime.world_size(), runtime.local_rank(), runtime.time_left(), runtime.stop_requested())
"""
    assert said(start(tmp_path, program)).strip() == "0 1 0 inf False"
    assert os.listdir(tmp_path) == []


def test_an_outcome_is_written_once_and_the_first_word_stands(tmp_path: Path) -> None:
    attempt = AttemptDir(tmp_path)
    assert runtime.finish(tmp_path, 2, Result.FAILED, Cause.NAN, "three in a row", images=640)
    assert not runtime.finish(tmp_path, 2, Result.COMPLETED)
    assert outcome.read(attempt, 2) == outcome.Outcome(2, Result.FAILED, Cause.NAN, "three in a row", {"images": 640})
    assert outcome.read(attempt, 0) is None


def test_finish_uses_and_removes_the_reserve(tmp_path: Path) -> None:
    program = """
runtime.install()
reserves = [name for name in os.listdir(runtime.attempt_dir()) if name.startswith(".outcome-0")]
assert len(reserves) == 1 and os.stat(runtime.attempt_dir() / reserves[0]).st_blocks * 512 >= runtime.RESERVE_BYTES
assert runtime.finish(runtime.attempt_dir(), 0, runtime.Result.COMPLETED, images=1)
assert not runtime.finish(runtime.attempt_dir(), 0, runtime.Result.YIELDED)
"""
    said(start(tmp_path, program))
    assert sorted(os.listdir(tmp_path)) == ["alive-0", "outcome-0.json"]
    assert outcome.read(AttemptDir(tmp_path), 0) == outcome.Outcome(0, Result.COMPLETED, info={"images": 1})


def test_the_longest_message_fits_the_reserve_and_keeps_its_end(tmp_path: Path) -> None:
    message = "\U0001f600\x00" * 100_000 + "ValueError: the last line says most"
    encoded = outcome.Outcome(0, Result.FAILED, Cause.USER, message).encode()
    assert len(encoded) < runtime.RESERVE_BYTES
    assert json.loads(encoded)["message"].endswith("ValueError: the last line says most")


FULL_DISK = """
import errno, os, subprocess, sys
from pathlib import Path
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", os.environ["STX_ATTEMPT"]], check=True)
from jobs import files, outcome, runtime
folder = runtime.attempt_dir()
runtime.install()
heart = runtime.Heart(folder)
heart.beat("step")
with open(folder / "filler", "wb", buffering=0) as stream:
    try:
        while True:
            stream.write(bytes(4096))
    except OSError as error:
        assert error.errno == errno.ENOSPC
heart.beat("save")
assert heart.failures == 1
try:
    files.publish(folder / "another", bytes(5000))
except OSError as error:
    assert error.errno == errno.ENOSPC
assert runtime.finish(folder, 0, runtime.Result.FAILED, runtime.Cause.NO_SPACE, "x" * 8000)
assert outcome.read(files.AttemptDir(folder), 0).message == "x" * 8000
assert sorted(os.listdir(folder)) == ["alive-0", "filler", "heartbeat.json", "outcome-0.json"]
print("survived")
"""


def test_an_outcome_is_written_on_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """In a mount namespace of its own, with a file system of 512 KiB."""
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(tmp_path)], check=False).returncode:
        pytest.skip("this machine does not let a user mount a file system in a namespace")
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-P", "-c", FULL_DISK],
        env={**os.environ, "PYTHONPATH": ROOT, "STX_ATTEMPT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "survived", done.stderr


def read_heart(folder: Path) -> dict[str, object]:
    record: dict[str, object] = json.loads(AttemptDir(folder).heartbeat.read_bytes())
    return record


def test_the_heart_beats_at_once_then_seldom_and_at_every_new_phase(tmp_path: Path) -> None:
    heart = Heart(tmp_path, every_s=3600)
    heart.beat("start")
    assert read_heart(tmp_path)["counter"] == 1
    heart.beat("start")
    assert read_heart(tmp_path)["counter"] == 1
    heart.beat("step", images=64, loss=0.5)
    record = read_heart(tmp_path)
    assert (record["counter"], record["phase"], record["numbers"]) == (3, "step", {"images": 64, "loss": 0.5})
    assert isinstance(record["time"], float)


def test_the_heart_writes_every_time_when_it_may(tmp_path: Path) -> None:
    heart = Heart(tmp_path, every_s=0)
    for _ in range(3):
        heart.beat("step")
        heart._next = 0.0  # whatever the last write cost
    assert read_heart(tmp_path)["counter"] == 3


def test_a_piece_of_something_long_beats_on_in_the_same_phase_with_the_same_numbers(tmp_path: Path) -> None:
    heart = Heart(tmp_path, every_s=0)
    heart.beat("save", images=64)
    heart._next = 0.0
    heart.again()
    record = read_heart(tmp_path)
    assert (record["counter"], record["phase"], record["numbers"]) == (2, "save", {"images": 64})


def test_a_beat_that_cannot_be_written_is_counted_and_ends_nothing(tmp_path: Path) -> None:
    heart = Heart(tmp_path / "gone")
    heart.beat("start")
    heart.beat("step")
    assert heart.failures == 2


def test_only_rank_0_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    Heart(tmp_path).beat("start")
    assert os.listdir(tmp_path) == []
