"""What only the local launcher promises; the rest is in test_contract.py."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from jobs import files, outcome, processes
from jobs.contract import Job, prepare, start, submit, until
from jobs.files import AttemptDir
from jobs.launchers.local import LocalLauncher
from jobs.spec import Handle, JobState, Resources, Result

SUBMIT = """
import json, os, signal, sys
from pathlib import Path
from jobs.launchers.local import LocalLauncher
from jobs.spec import JobSpec
job = JobSpec.parse(json.loads(Path(sys.argv[2]).read_bytes())["job"])
LocalLauncher(slots_dir=Path(sys.argv[1])).submit(job)
os.kill(os.getpid(), signal.SIGKILL)
"""


def supervisor_pid(job: Job) -> int:
    return int(job.handle.job_id.split(":")[0])


def kill_supervisor(job: Job) -> None:
    """And wait until the job is seen without it."""
    os.kill(supervisor_pid(job), signal.SIGKILL)
    until(lambda: "supervisor is gone" in job.observe().detail, "the supervisor is gone")


def rank_pids(job: Job) -> list[int]:
    return [int(job.attempt.alive(rank).read_text()) for rank in job.ranks]


def test_signals_right_after_submit_are_a_clean_yield_ten_times_of_ten(
    local: LocalLauncher, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STX_CORES", "16")
    live = []
    for number in range(10):
        live.append(submit(local, prepare(folder, "wait")))
        os.kill(supervisor_pid(live[-1]), signal.SIGTERM if number % 2 else signal.SIGUSR2)
    for job in live:
        (said,) = job.wait_ended()
        assert said is not None and said.result is Result.YIELDED, str(said)
        log = job.attempt.supervisor_log.read_text()
        assert "code=-" not in log, "nobody died by a signal"


def test_signals_straight_to_a_starting_rank_wait_until_it_can_handle_them(local: LocalLauncher, folder: Path) -> None:
    """Without the blocked mask a rank that has not installed its handlers would die of them."""
    job = submit(local, prepare(folder, "wait"))
    until(lambda: bool(children(supervisor_pid(job))), "the rank was started")
    for pid in children(supervisor_pid(job)):
        os.kill(pid, signal.SIGUSR2)
        os.kill(pid, signal.SIGTERM)
    (said,) = job.wait_ended()
    assert said is not None and said.result is Result.YIELDED, str(said)


def children(pid: int) -> list[int]:
    return [process.pid for process in processes.every() if process.session == pid and process.pid != pid]


def test_a_job_whose_supervisor_was_killed_runs_on_and_heeds_a_stop(local: LocalLauncher, folder: Path) -> None:
    job = start(local, folder, "wait", ranks=2)
    kill_supervisor(job)
    assert job.observe().state is JobState.RUNNING
    assert local.find(job.spec.tag, job.attempt.path) == job.handle
    local.stop(job.handle, job.attempt.path)
    for said in job.wait_ended():
        assert said is not None and said.result is Result.YIELDED, str(said)


def test_ranks_without_a_supervisor_are_known_by_any_path_to_the_store(local: LocalLauncher, folder: Path) -> None:
    job = start(local, folder, "wait")
    kill_supervisor(job)
    alias = folder.parent / "alias"
    alias.symlink_to(folder)
    seen = local.poll([job.handle], {job.spec.tag: alias / job.attempt.path.name})
    assert seen[job.handle].state is JobState.RUNNING
    local.stop(job.handle, alias / job.attempt.path.name)
    job.wait_ended()


def test_a_cancel_ends_the_ranks_of_a_killed_supervisor_and_their_children(local: LocalLauncher, folder: Path) -> None:
    job = start(local, folder, "stubborn", ranks=2)
    until(lambda: len(list(folder.glob("child-*"))) == 2, "both ranks have started a child")
    children = [int(path.read_text()) for path in folder.glob("child-*")]
    kill_supervisor(job)
    local.cancel(job.handle, job.attempt.path)
    assert job.wait_ended() == [None, None]
    until(lambda: not any(map(processes.look, children)), "the killed children are gone")


def test_a_cancel_of_ranks_that_heed_it_does_not_wait(local: LocalLauncher, folder: Path) -> None:
    job = start(local, folder, "wait", ranks=2)
    local.cancel(job.handle, job.attempt.path)
    job.wait_ended()
    assert "code=-9" not in job.attempt.supervisor_log.read_text()


def test_a_cancel_that_its_supervisor_does_not_heed_kills_everything(local: LocalLauncher, folder: Path) -> None:
    job = start(local, folder, "stubborn")
    os.kill(supervisor_pid(job), signal.SIGSTOP)
    local.cancel(job.handle, job.attempt.path)
    assert job.observe().state is JobState.RUNNING
    asked = json.loads(job.attempt.stop.read_bytes())
    files.write(job.attempt.stop, json.dumps(asked | {"monotonic": asked["monotonic"] - 3600}).encode())
    local.cancel(job.handle, job.attempt.path)
    assert job.wait_ended() == [None]


def test_a_cancel_on_a_full_disk_kills(local: LocalLauncher, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = start(local, folder, "stubborn")

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write", full)
    while job.observe().state is not JobState.ENDED:  # a rank may start while the others are counted
        local.cancel(job.handle, job.attempt.path)
        time.sleep(0.05)
    assert job.wait_ended() == [None]


def test_a_job_outlives_a_killed_submitter_and_is_found_by_another(
    local: LocalLauncher, folder: Path, tmp_path: Path
) -> None:
    """The submitter dies between the start of the supervisor and the publication of its handle."""
    spec = prepare(folder, "wait")
    command = [sys.executable, "-P", "-c", SUBMIT, str(tmp_path / "slots"), str(AttemptDir(spec.attempt_dir).intent)]
    done = subprocess.run(command, env={**os.environ, **spec.env}, check=False)
    assert done.returncode == -signal.SIGKILL
    handle = local.find(spec.tag, spec.attempt_dir)
    assert handle is not None, "found at once, whether it has published started.json or not"
    job = Job(local, spec, handle)
    job.wait_alive()
    local.stop(job.handle, spec.attempt_dir)
    (said,) = job.wait_ended()
    assert said is not None and said.result is Result.YIELDED


def test_a_supervisor_that_has_published_nothing_yet_is_found(local: LocalLauncher, folder: Path) -> None:
    job = submit(local, prepare(folder, "wait"))
    os.kill(supervisor_pid(job), signal.SIGSTOP)
    until(lambda: process_state(supervisor_pid(job)) == "T", "it is stopped")
    if not job.attempt.started.exists():  # it has 20 ms of imports before it
        assert local.find(job.spec.tag, job.attempt.path) == job.handle
        assert job.observe().state is JobState.PENDING
    os.kill(supervisor_pid(job), signal.SIGCONT)
    local.stop(job.handle, job.attempt.path)
    job.wait_ended()


def test_a_supervisor_that_was_stopped_is_continued_by_who_polls_it_and_its_ranks_are_not(
    local: LocalLauncher, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = start(local, folder, "wait")
    (rank,) = rank_pids(job)
    for pid in (rank, supervisor_pid(job)):
        os.kill(pid, signal.SIGSTOP)
    until(lambda: process_state(supervisor_pid(job)) == "T", "it is stopped")
    job.observe()
    assert process_state(supervisor_pid(job)) == "T", "a moment is nobody's business"
    monkeypatch.setattr("jobs.launchers.local.WAKE_AFTER_S", 0.1)
    until(lambda: bool(job.observe()) and process_state(supervisor_pid(job)) != "T", "it goes on")
    assert process_state(rank) == "T"
    os.kill(rank, signal.SIGCONT)
    local.stop(job.handle, job.attempt.path)
    (said,) = job.wait_ended()
    assert said is not None and said.result is Result.YIELDED


def process_state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def test_a_job_is_pending_until_it_has_its_cores_and_a_stop_ends_it_there(local: LocalLauncher, folder: Path) -> None:
    first = start(local, folder, "wait", ranks=3)
    second = submit(local, prepare(folder, "wait", ranks=2))
    third = submit(local, prepare(folder, "wait", ranks=2))
    until(second.attempt.started.exists, "the second supervisor has started")
    assert first.observe().state is JobState.RUNNING
    assert second.observe().state is JobState.PENDING
    local.stop(second.handle, second.attempt.path)
    for said in second.wait_ended():
        assert said is not None and said.info == {"started": False}
    assert third.observe().state is JobState.PENDING
    local.stop(first.handle, first.attempt.path)
    third.wait_alive()
    local.stop(third.handle, third.attempt.path)
    first.wait_ended()
    third.wait_ended()


def test_the_cores_of_a_killed_supervisors_ranks_stay_taken(local: LocalLauncher, folder: Path) -> None:
    first = start(local, folder, "wait", ranks=3)
    kill_supervisor(first)
    second = submit(local, prepare(folder, "wait", ranks=2))
    until(second.attempt.started.exists, "the second supervisor has started")
    assert second.observe().state is JobState.PENDING
    local.stop(first.handle, first.attempt.path)
    second.wait_alive()
    local.stop(second.handle, second.attempt.path)
    first.wait_ended()
    second.wait_ended()


def test_another_process_with_the_same_pid_is_not_the_job(local: LocalLauncher, folder: Path) -> None:
    me = processes.me()
    _, _, boot, machine = processes.unique_id(me).split(":")
    folder.joinpath("001").mkdir()

    def observe(job_id: str) -> JobState:
        handle = Handle("t", job_id)
        local.cancel(handle, folder / "001")  # must not touch this process
        return local.poll([handle], {"t": folder / "001"})[handle].state

    assert observe(f"{me.pid}:{me.start_time - 1}:{boot}:{machine}") is JobState.ENDED
    assert observe(f"{me.pid}:{me.start_time}:another-boot:{machine}") is JobState.ENDED
    assert observe(f"{me.pid}:{me.start_time}:{boot}:another-machine") is JobState.UNKNOWN


def seen_by_another_user(handle: Handle, attempt: Path) -> JobState:
    """What a user who is neither root nor the job's sees of it, in a forked child."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(4242, 4242, 4242)
            os.setresuid(4242, 4242, 4242)
            seen = LocalLauncher(slots_dir=attempt).poll([handle], {handle.tag: attempt})[handle]
            os._exit(list(JobState).index(seen.state))
        finally:
            os._exit(99)
    return list(JobState)[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_ranks_of_another_user_without_their_supervisor_count_as_his_job() -> None:
    with tempfile.TemporaryDirectory() as name:
        attempt = Path(name)
        attempt.chmod(0o755)
        script = "sleep 60 & echo $! ; read line"
        leader = subprocess.Popen(
            ["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert leader.stdin is not None
        assert leader.stdout is not None
        rank, found = int(leader.stdout.readline()), processes.look(leader.pid)
        assert found is not None
        handle = Handle("stx-test", processes.unique_id(found))
        assert seen_by_another_user(handle, attempt) is JobState.PENDING
        leader.stdin.close()
        leader.wait()
        leader.stdout.close()
        assert seen_by_another_user(handle, attempt) is JobState.RUNNING
        os.kill(rank, signal.SIGKILL)
        until(lambda: processes.look(rank) is None, "the rank is gone")
        assert seen_by_another_user(handle, attempt) is JobState.ENDED


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's folder")
def test_where_processes_of_others_are_hidden_their_jobs_are_never_called_gone(
    tmp_path: Path, local: LocalLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = processes.me()
    gone = Handle("stx-test", processes.unique_id(me._replace(start_time=me.start_time - 1)))
    monkeypatch.setattr(processes, "others_are_seen", lambda: False)
    states = []
    for owner in (os.geteuid(), 4242):
        os.chown(tmp_path, owner, -1)
        states.append(local.poll([gone], {gone.tag: tmp_path})[gone].state)
    assert states == [JobState.ENDED, JobState.UNKNOWN]


def test_one_poll_observes_many_jobs(local: LocalLauncher, folder: Path) -> None:
    running = start(local, folder, "wait")
    ended = submit(local, prepare(folder, "report"))
    ended.wait_ended()
    dirs = {job.spec.tag: job.attempt.path for job in (running, ended)}
    rest = ended.handle.job_id.partition(":")[2]
    gone = [Handle(ended.spec.tag, f"{10_000_000 + number}:{rest}") for number in range(200)]
    seen = local.poll([running.handle, ended.handle, *gone], dirs)
    assert {seen[handle].state for handle in gone} == {JobState.ENDED}
    assert seen[running.handle].state is JobState.RUNNING
    assert seen[ended.handle].state is JobState.ENDED
    assert local.poll([], {}) == {}
    local.stop(running.handle, running.attempt.path)
    running.wait_ended()


def test_ended_supervisors_are_reaped(local: LocalLauncher, folder: Path) -> None:
    job = submit(local, prepare(folder, "report"))
    job.wait_ended()
    job.observe()
    assert processes.look(supervisor_pid(job), zombies=True) is None


def test_a_job_that_could_not_be_found_again_or_would_stop_at_once_is_refused(
    local: LocalLauncher, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="leaves nothing of its 60 s"):
        local.submit(prepare(folder, "wait", time_s=60.0, stop_lead_s=90.0))
    monkeypatch.chdir(folder.parent)
    with pytest.raises(ValueError, match="absolute path"):
        local.submit(prepare(Path("attempts"), "wait"))
    assert not outcome.read(AttemptDir(folder / "000"), 0)


def test_a_refusal_does_the_arithmetic(local: LocalLauncher) -> None:
    assert local.refusal(Resources(ranks_per_node=2, cpus_per_rank=2, mem_gb=0.1)) is None
    assert local.refusal(Resources(ranks_per_node=2, cpus_per_rank=3, mem_gb=0.1)) == (
        "2 ranks x 3 cores = 6, but this machine has 4 for jobs"
    )
    assert local.refusal(Resources(gpus_per_rank=1)) == "1 ranks x 1 GPUs = 1, but this machine has 0 for jobs"
    assert "one node" in str(local.refusal(Resources(nodes=2)))


def test_the_identity_names_the_machine_and_not_the_boot(local: LocalLauncher) -> None:
    assert local.identity() == f"local:{processes.machine()}"
    assert processes.boot_id() not in local.identity()


def test_a_job_does_not_import_from_where_its_submitter_stands(
    local: LocalLauncher, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = folder.parent / "trap"
    (trap / "jobs").mkdir(parents=True)
    (trap / "jobs" / "__init__.py").write_text("raise SystemExit('the wrong jobs')")
    monkeypatch.chdir(trap)
    (said,) = submit(local, prepare(folder, "report")).wait_ended()
    assert said is not None and said.result is Result.COMPLETED


def test_stacks_of_a_live_rank_go_to_its_log_on_usr1(local: LocalLauncher, folder: Path) -> None:
    job = start(local, folder, "wait")
    (pid,) = rank_pids(job)
    os.kill(pid, signal.SIGUSR1)
    until(lambda: "in main" in job.attempt.log(0).read_text(), "the stacks are in the log")
    local.stop(job.handle, job.attempt.path)
    job.wait_ended()
