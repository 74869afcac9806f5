"""`python -m jobs.exec` as a launcher starts it; what launchers see of it is in test_contract.py."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from jobs import conclusion, contract, files, outcome, processes, supervisor
from jobs.contract import until
from jobs.environment import environment
from jobs.files import AttemptDir
from jobs.outcome import Outcome
from jobs.placement import Placement
from jobs.spec import Cause, JobSpec, Resources, Result
from tests.jobs.programs import ROOT, prepare, run, start, the_outcome

INSTALL = "from jobs import runtime; runtime.install();"


def test_started_json_names_the_process_that_runs_the_attempt(folder: Path) -> None:
    attempt = prepare(folder, f"{INSTALL} runtime.finish(runtime.attempt_dir(), 0, runtime.Result.COMPLETED)")
    process = start(attempt)
    assert process.wait() == 0
    started = json.loads(attempt.started.read_bytes())
    assert started["pid"] == process.pid
    assert started["boot_id"] == processes.boot_id()
    assert started["host"] == processes.machine()
    assert started["job_id"] == f"{process.pid}:{started['start_time']}:{started['boot_id']}:{started['host']}"


def test_a_supervisor_that_finds_anothers_started_json_touches_nothing(folder: Path) -> None:
    attempt = prepare(folder, "raise SystemExit(3)")
    attempt.started.write_text('{"job_id": "another"}')
    assert run(attempt) == 0
    assert sorted(path.name for path in attempt.path.iterdir()) == ["started.json", "supervisor.log"]
    assert attempt.started.read_text() == '{"job_id": "another"}'


def test_an_attempt_that_was_judged_is_not_started_any_more(folder: Path) -> None:
    attempt = prepare(folder, "raise SystemExit(3)")
    attempt.verdict.write_text("{}")
    assert run(attempt) == 0
    assert not attempt.started.exists()
    assert not attempt.log(0).exists()


def test_an_attempt_that_was_stopped_before_it_started_yields_without_a_rank(folder: Path) -> None:
    attempt = prepare(folder, "raise SystemExit(3)", ranks=2)
    attempt.stop.write_text("{}")
    assert run(attempt) == 0
    for rank in range(2):
        said = the_outcome(attempt, rank)
        assert said.result is Result.YIELDED
        assert said.info == {"started": False}
        assert not attempt.log(rank).exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"job": {"tag": "x"}}', '{"job": null}'])
def test_an_intent_that_cannot_be_used_is_a_setup_failure_that_names_it(folder: Path, text: str) -> None:
    attempt = prepare(folder, "")
    attempt.intent.write_text(text)
    assert run(attempt) == 1
    assert the_outcome(attempt).cause is Cause.SETUP
    assert str(attempt.intent) in the_outcome(attempt).message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's file")
def test_a_claim_that_another_user_wrote_is_not_run(folder: Path) -> None:
    attempt = prepare(folder, "raise SystemExit(0)")
    os.chown(attempt.intent, 4242, 4242)
    assert run(attempt) == 1
    assert the_outcome(attempt).cause is Cause.SETUP
    assert "not written by the user whose job this is" in the_outcome(attempt).message


def test_logs_that_were_planted_as_links_are_not_written(folder: Path) -> None:
    attempt = prepare(folder, "print('overwritten')")
    victim = folder / "victim"
    victim.write_bytes(b"old")
    attempt.log(0).symlink_to(victim)
    assert run(attempt) == 1
    assert the_outcome(attempt).cause is Cause.SETUP
    assert victim.read_bytes() == b"old"


@pytest.mark.parametrize("change", [{"argv": ("/no/such/program",)}, {"cwd": Path("/no/such/folder")}])
def test_a_program_or_folder_that_does_not_exist_is_a_setup_failure_that_names_it(
    folder: Path, change: Mapping[str, object]
) -> None:
    attempt = prepare(folder, "", **change)
    assert run(attempt) == 1
    assert the_outcome(attempt).cause is Cause.SETUP
    assert "/no/such/" in the_outcome(attempt).message


@pytest.mark.parametrize(
    "program", ["raise SystemExit(0)", "raise SystemExit(75)", "import os; os.kill(os.getpid(), 9)"]
)
def test_a_rank_that_was_never_alive_is_a_setup_failure_however_it_ended(folder: Path, program: str) -> None:
    attempt = prepare(folder, f"print('last words'); {program}")
    run(attempt)
    assert the_outcome(attempt).cause is Cause.SETUP
    assert "last words" in the_outcome(attempt).message


def test_only_the_end_of_a_long_log_is_in_the_message(folder: Path) -> None:
    attempt = prepare(folder, "[print(f'<{n}>') for n in range(100_000)]")
    run(attempt)
    lines = the_outcome(attempt).message.splitlines()
    assert lines[-1] == "<99999>"
    assert len(lines) < 50


def test_a_rank_that_was_alive_and_vanished_has_no_outcome(folder: Path) -> None:
    attempt = prepare(folder, f"{INSTALL} import os; os.kill(os.getpid(), 9)")
    assert run(attempt) == 1
    assert outcome.read(attempt, 0) is None


def test_a_rank_that_crashes_after_its_outcome_did_its_work(folder: Path) -> None:
    """A driver that fails while the interpreter is taken down must not end the other ranks, nor the stage."""
    program = f"""{INSTALL}
import os, time
attempt, rank = files.AttemptDir(runtime.attempt_dir()), runtime.rank()
while rank == 1 and attempt.outcome(0).exists() is False:
    time.sleep(0.01)
time.sleep(0.2 * rank)
runtime.finish(attempt.path, rank, runtime.Result.COMPLETED)
os.kill(os.getpid(), 11 * (1 - rank))
"""
    attempt = prepare(folder, "from jobs import files\n" + program, ranks=2)
    assert run(attempt) == 0
    assert [the_outcome(attempt, rank).result for rank in range(2)] == [Result.COMPLETED] * 2


def test_what_a_rank_leaves_behind_is_ended(folder: Path) -> None:
    program = f"""{INSTALL}
import subprocess
child = subprocess.Popen(["sleep", "3600"], start_new_session=False, process_group=0)
runtime.finish(runtime.attempt_dir(), 0, runtime.Result.COMPLETED, child=child.pid)
"""
    attempt = prepare(folder, program)
    assert run(attempt) == 0
    assert processes.look(the_outcome(attempt).info["child"]) is None


def test_signals_in_the_first_milliseconds_end_in_a_clean_yield(folder: Path) -> None:
    """USR2 and TERM at once after the start, ten times; and again while the ranks start."""
    stopped = f"""{INSTALL}
import sys, time
while not runtime.stop_requested():
    time.sleep(0.005)
runtime.finish(runtime.attempt_dir(), 0, runtime.Result.YIELDED)
sys.exit(75)
"""
    live = []
    # As a launcher does it: blocked in the child from its first instruction.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, supervisor.BLOCKED_IN_RANKS)
    try:
        for number in range(10):
            (folder / str(number)).mkdir()
            attempt = prepare(folder / str(number), stopped)
            process = start(attempt)
            process.send_signal(signal.SIGTERM if number % 2 else signal.SIGUSR2)
            live.append((attempt, process))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    for attempt, process in live:
        assert process.wait(contract.PATIENCE_S) == 0
        assert the_outcome(attempt).result is Result.YIELDED


def test_a_signal_while_the_job_waits_for_slots_is_a_yield(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STX_CORES", "0")
    attempt = prepare(folder, "raise SystemExit(3)")
    process = start(attempt, "--slots", str(tmp_path / "slots"))
    until(attempt.started.exists, "the supervisor has started")
    process.send_signal(signal.SIGTERM)
    assert process.wait(contract.PATIENCE_S) == 0
    assert the_outcome(attempt).result is Result.YIELDED
    assert not attempt.log(0).exists()


def test_slots_that_cannot_be_used_are_a_setup_failure_that_names_them(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "slots").write_text("not a folder")
    attempt = prepare(folder, "raise SystemExit(3)", ranks=2)
    assert run(attempt, "--slots", str(tmp_path / "slots")) == 1
    for rank in range(2):
        assert the_outcome(attempt, rank).cause is Cause.SETUP
        assert str(tmp_path / "slots") in the_outcome(attempt, rank).message


@pytest.mark.slow
def test_a_rank_that_ignores_the_time_limit_is_killed(folder: Path) -> None:
    program = f"{INSTALL} import time; [time.sleep(1) for _ in range(3600)]"
    attempt = prepare(folder, program, resources=Resources(time_s=1.0), stop_lead_s=0.5)
    assert run(attempt) == 1
    assert outcome.read(attempt, 0) is None
    log = attempt.supervisor_log.read_text()
    assert log.index("forwarding signal=SIGUSR2") < log.index("time limit reached") < log.index("code=-9")


def test_each_rank_sees_its_own_gpus_and_nothing_of_a_surrounding_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5")
    job = JobSpec(
        tag="t",
        argv=("true",),
        attempt_dir=Path("/a/001"),
        cwd=Path("/"),
        resources=Resources(nodes=2, ranks_per_node=2, gpus_per_rank=2, cpus_per_rank=3),
        env={"OMP_NUM_THREADS": "5", "RANK": "9"},
    )
    granted, size = ["0", "3", "4", "5"], job.resources
    mine = [Placement("j").gpus_of(rank, size, granted=granted) for rank in range(4)]
    seen = [
        environment(job, rank, gpus=gpus, attempt=AttemptDir(job.attempt_dir), kill_at=1.5, node="n1")
        for rank, gpus in enumerate(mine)
    ]
    assert [env["CUDA_VISIBLE_DEVICES"] for env in seen] == ["0,3", "4,5", "0,3", "4,5"]
    assert [(env["RANK"], env["LOCAL_RANK"]) for env in seen] == [("0", "0"), ("1", "1"), ("2", "0"), ("3", "1")]
    assert {env["WORLD_SIZE"] for env in seen} == {"4"}
    assert all("MASTER_PORT" not in env and "SLURM_PROCID" not in env for env in seen)
    assert {env["SLURM_CONF"] for env in seen} == {"/etc/slurm.conf"}
    assert {(env["MKL_NUM_THREADS"], env["OMP_NUM_THREADS"]) for env in seen} == {("3", "5")}
    assert {(env["STX_DEADLINE"], env["STX_NODE"]) for env in seen} == {("1.5", "n1")}


def test_the_supervisor_and_the_runtime_need_the_standard_library_only() -> None:
    """-S: no site-packages. And little of it: a supervisor stands beside every job."""
    program = (
        "import sys; import jobs.exec, jobs.supervisor; small = set(sys.modules); import jobs.runtime; print(*small)"
    )
    command = [sys.executable, "-S", "-P", "-c", program]
    done = subprocess.run(command, env={"PYTHONPATH": ROOT}, capture_output=True, text=True, check=True)
    assert not {"subprocess", "logging", "tempfile", "asyncio", "socket"} & set(done.stdout.split())


def test_a_supervisor_holds_no_descriptor_of_its_submitter(folder: Path) -> None:
    read_end, write_end = os.pipe()
    attempt = prepare(folder, f"{INSTALL} import time; [time.sleep(0.01) for _ in iter(runtime.stop_requested, True)]")
    with attempt.supervisor_log.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "jobs.exec", str(attempt.path)],
            env={**os.environ, "PYTHONPATH": ROOT},
            stderr=log,
            pass_fds=[write_end],
            start_new_session=True,
        )
    os.close(write_end)
    assert os.read(read_end, 1) == b"", "the pipe is closed although the job lives"
    os.close(read_end)
    until(attempt.alive(0).exists, "the rank is alive")
    process.send_signal(signal.SIGTERM)
    process.wait(contract.PATIENCE_S)


def test_a_full_disk_does_not_keep_the_supervisor_from_reaping(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "publish", full)
    monkeypatch.setattr(outcome, "SAY_AGAIN_S", (0.0,))
    conclusion.publish(AttemptDir(folder), Outcome(0, Result.YIELDED))
    assert "No space left on device" in capfd.readouterr().err
