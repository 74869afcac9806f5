"""What every launcher must do, checked on the real thing: `for check in CHECKS: check(launcher, an_empty_folder)`.

The launcher must have room for two ranks of one core. The ranks are real programs: `python -m jobs.contract MODE`, the
lower half of this file. Nothing here knows which launcher it is; what only one of them promises is in that one's own
tests.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jobs
from jobs import files, outcome, runtime
from jobs.files import AttemptDir
from jobs.launcher import Launcher
from jobs.outcome import Outcome
from jobs.rendezvous import rendezvous
from jobs.spec import Cause, Handle, JobSpec, JobState, Observation, Resources, Result

PATIENCE_S = 60.0  # for a loaded machine; nothing here takes a second on a quiet one


@dataclass(frozen=True)
class Job:
    """A submitted job of the contract."""

    launcher: Launcher
    spec: JobSpec
    handle: Handle

    @property
    def attempt(self) -> AttemptDir:
        """Its attempt directory."""
        return AttemptDir(self.spec.attempt_dir)

    @property
    def ranks(self) -> range:
        """Its ranks."""
        return range(self.spec.resources.ranks)

    def observe(self) -> Observation:
        """What the launcher says of it now."""
        return self.launcher.poll([self.handle], {self.spec.tag: self.spec.attempt_dir})[self.handle]

    def wait_alive(self) -> None:
        """Until all ranks have their handlers."""
        until(lambda: all(self.attempt.alive(rank).exists() for rank in self.ranks), f"{self.spec.tag} is alive")

    def wait_ended(self) -> list[Outcome | None]:
        """Until the launcher says so; the outcomes by rank."""
        until(lambda: self.observe().state is JobState.ENDED, f"{self.spec.tag} has ended")
        return [outcome.read(self.attempt, rank) for rank in self.ranks]


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:g} s: {what}"
        time.sleep(0.02)


def prepare(folder: Path, mode: str, *, ranks: int = 1, time_s: float = 600.0, stop_lead_s: float = 90.0) -> JobSpec:
    """A job of the contract with its intent published, as a coordinator does before it submits."""
    number = len(list(folder.glob("*.intent.json")))
    spec = JobSpec(
        tag=f"stx-contract-{folder.name}-{number}",
        argv=(sys.executable, "-P", "-m", "jobs.contract", mode),
        attempt_dir=folder / f"{number:03d}",
        cwd=folder,
        resources=Resources(ranks_per_node=ranks, mem_gb=0.1, time_s=time_s),
        env={"PYTHONPATH": str(Path(jobs.__file__).parent.parent), "CONTRACT": "a value; with $signs"},
        stop_lead_s=stop_lead_s,
    )
    intent = {"tag": spec.tag, "job": spec.dump()}
    assert files.publish(AttemptDir(spec.attempt_dir).intent, json.dumps(intent).encode())
    spec.attempt_dir.mkdir()
    return spec


def submit(launcher: Launcher, spec: JobSpec) -> Job:
    """Submit a prepared job."""
    return Job(launcher, spec, launcher.submit(spec))


def start(launcher: Launcher, folder: Path, mode: str, *, ranks: int = 1) -> Job:
    """Prepare, submit, and wait until it is alive."""
    job = submit(launcher, prepare(folder, mode, ranks=ranks))
    job.wait_alive()
    return job


def check_a_job_completes_with_torchs_environment(launcher: Launcher, folder: Path) -> None:
    """RANK and the rest, threads, no GPU, the job's own variables, one rendezvous for all ranks."""
    job = submit(launcher, prepare(folder, "report", ranks=2))
    outcomes = job.wait_ended()
    ports = set()
    for rank, said in enumerate(outcomes):
        assert said is not None and said.result is Result.COMPLETED, f"rank {rank}: {said}"
        seen = said.info["environment"]
        ports.add(seen["MASTER_PORT"])
        expected = {
            "RANK": str(rank),
            "WORLD_SIZE": "2",
            "STX_ATTEMPT": str(job.attempt.path),
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "CONTRACT": "a value; with $signs",
        }
        assert {name: seen.get(name) for name in expected} == expected
        assert said.info["cwd"] == str(folder)
        assert 0 < said.info["time_left"] <= job.spec.resources.time_s
    assert len(ports) == 1, f"the ranks met at different places: {ports}"
    assert f"hello from rank 1 of {job.spec.tag}" in job.attempt.log(1).read_text()


def check_signals_have_clean_dispositions_in_a_program_of_the_users(launcher: Launcher, folder: Path) -> None:
    """Nothing blocked, nothing ignored: children that inherit a blocked TERM could never be ended."""
    (said,) = submit(launcher, prepare(folder, "report")).wait_ended()
    assert said is not None
    assert said.info["child_blocked"] == 0, "a program started by the worker has signals blocked"
    # posix_spawn of glibc ignores 32 and 33, which belong to its threads.
    assert said.info["child_ignored"] & ~(0b11 << 31) == 0, "a program started by the worker ignores signals"


def check_a_stop_is_a_yield_of_all_ranks(launcher: Launcher, folder: Path) -> None:
    """USR2 to all ranks, which save and exit 75."""
    job = start(launcher, folder, "wait", ranks=2)
    until(lambda: job.observe().state is JobState.RUNNING, "a job with live ranks is RUNNING")
    launcher.stop(job.handle, job.attempt.path)
    for said in job.wait_ended():
        assert said is not None and said.result is Result.YIELDED, str(said)


def check_a_stop_right_after_submit_is_a_yield(launcher: Launcher, folder: Path) -> None:
    """However early the signal comes, nobody dies of it."""
    for _ in range(3):
        job = submit(launcher, prepare(folder, "wait"))
        launcher.stop(job.handle, job.attempt.path)
        (said,) = job.wait_ended()
        never_began = said is None and not job.attempt.started.exists()  # a scheduler may take it back from its queue
        assert never_began or (said is not None and said.result is Result.YIELDED), str(said)


def check_a_cancel_ends_stubborn_ranks_and_what_they_started(launcher: Launcher, folder: Path) -> None:
    """Ranks that do not heed TERM, and their children, are gone; a second cancel does nothing."""
    job = start(launcher, folder, "stubborn", ranks=2)
    until(lambda: len(list(folder.glob("child-*"))) == 2, "both ranks have started a child")
    children = [int(path.read_text()) for path in folder.glob("child-*")]
    launcher.cancel(job.handle, job.attempt.path)
    launcher.cancel(job.handle, job.attempt.path)
    job.wait_ended()
    until(lambda: not any(Path(f"/proc/{pid}/cwd").exists() for pid in children), "the children of the ranks are gone")
    launcher.cancel(job.handle, job.attempt.path)
    assert job.observe().state is JobState.ENDED


def check_a_killed_rank_ends_the_others_and_leaves_no_outcome(launcher: Launcher, folder: Path) -> None:
    """A rank that was alive and vanished is not judged here: no outcome, ENDED."""
    job = start(launcher, folder, "rank-1-is-killed", ranks=2)
    outcomes = job.wait_ended()
    assert outcomes[1] is None, str(outcomes[1])
    assert outcomes[0] is None or outcomes[0].result is Result.YIELDED, str(outcomes[0])


def check_a_failed_rank_gives_its_cause_to_those_ended_for_it(launcher: Launcher, folder: Path) -> None:
    """So that all outcomes exist, and all say USER."""
    job = submit(launcher, prepare(folder, "rank-1-fails", ranks=2))
    for said in job.wait_ended():
        assert said is not None and said.cause is Cause.USER, str(said)
        assert "a mistake of the user's" in said.message


def check_a_worker_that_never_started_is_a_setup_failure_with_its_last_words(launcher: Launcher, folder: Path) -> None:
    """An import error, before the handlers stand."""
    (said,) = submit(launcher, prepare(folder, "broken")).wait_ended()
    assert said is not None and said.cause is Cause.SETUP, str(said)
    assert "ModuleNotFoundError: No module named 'no_such_package'" in said.message


def check_find_adopts_a_live_job(launcher: Launcher, folder: Path) -> None:
    """By its tag and directory alone; a job nobody submitted is not found."""
    job = start(launcher, folder, "wait")
    assert launcher.find(job.spec.tag, job.attempt.path) == job.handle
    unknown = folder / "999"
    assert launcher.find("stx-contract-unknown-999", unknown) is None
    launcher.stop(job.handle, job.attempt.path)
    job.wait_ended()


def check_a_second_job_for_an_attempt_touches_nothing(launcher: Launcher, folder: Path) -> None:
    """A request that was sent twice runs once."""
    first = start(launcher, folder, "wait")
    started = first.attempt.started.read_bytes()
    second = submit(launcher, first.spec)
    second.wait_ended()
    assert first.observe().state is JobState.RUNNING
    assert outcome.read(first.attempt, 0) is None
    assert first.attempt.started.read_bytes() == started
    launcher.stop(first.handle, first.attempt.path)
    first.wait_ended()


def check_the_time_limit_is_announced_by_a_stop(launcher: Launcher, folder: Path) -> None:
    """stop_lead_s before the end the ranks are asked to save."""
    job = submit(launcher, prepare(folder, "wait", time_s=40.0, stop_lead_s=39.5))
    (said,) = job.wait_ended()
    assert said is not None and said.result is Result.YIELDED, str(said)


def check_render_is_pure(launcher: Launcher, folder: Path) -> None:
    """The exact request, twice the same, and nothing is written or started."""
    spec = prepare(folder, "wait")
    before = sorted(folder.rglob("*"))
    assert launcher.render(spec) == launcher.render(spec)
    assert str(spec.attempt_dir) in launcher.render(spec)
    assert sorted(folder.rglob("*")) == before
    assert launcher.find(spec.tag, spec.attempt_dir) is None


def check_impossible_sizes_are_refused(launcher: Launcher, folder: Path) -> None:
    """In a sentence that names the number; a possible size is not."""
    assert launcher.refusal(Resources(mem_gb=0.1)) is None
    for impossible in (Resources(cpus_per_rank=99_999), Resources(gpus_per_rank=99_999), Resources(mem_gb=99_999.0)):
        refusal = launcher.refusal(impossible)
        assert refusal is not None and "99999" in refusal, str(refusal)


CHECKS: tuple[Callable[[Launcher, Path], None], ...] = (
    check_a_job_completes_with_torchs_environment,
    check_signals_have_clean_dispositions_in_a_program_of_the_users,
    check_a_stop_is_a_yield_of_all_ranks,
    check_a_stop_right_after_submit_is_a_yield,
    check_a_cancel_ends_stubborn_ranks_and_what_they_started,
    check_a_killed_rank_ends_the_others_and_leaves_no_outcome,
    check_a_failed_rank_gives_its_cause_to_those_ended_for_it,
    check_a_worker_that_never_started_is_a_setup_failure_with_its_last_words,
    check_find_adopts_a_live_job,
    check_a_second_job_for_an_attempt_touches_nothing,
    check_the_time_limit_is_announced_by_a_stop,
    check_render_is_pure,
    check_impossible_sizes_are_refused,
)


# The ranks.


def _report() -> int:
    """Complete, and tell what was seen."""
    place = rendezvous(runtime.attempt_dir(), timeout_s=PATIENCE_S)
    if place.listen_fd is not None:
        with socket.socket(fileno=place.listen_fd) as server:
            for _ in range(runtime.world_size() - 1):
                server.accept()[0].close()
    child = subprocess.run(["cat", "/proc/self/status"], check=True, capture_output=True, text=True).stdout
    masks = dict(line.split(":\t") for line in child.splitlines() if line.startswith("Sig"))
    tag = json.loads(AttemptDir(runtime.attempt_dir()).intent.read_bytes())["tag"]
    sys.stdout.write(f"hello from rank {runtime.rank()} of {tag}\n")
    return _finish(
        Result.COMPLETED,
        environment=dict(os.environ),
        cwd=str(Path.cwd()),
        time_left=runtime.time_left(),
        child_blocked=int(masks["SigBlk"], 16),
        child_ignored=int(masks["SigIgn"], 16),
    )


def _wait() -> int:
    """Work until asked to stop."""
    heart = runtime.Heart(runtime.attempt_dir())
    while not runtime.stop_requested():
        heart.beat("step")
        time.sleep(0.01)
    return _finish(Result.YIELDED)


def _stubborn() -> int:
    """Never stop, and start a child that does not either."""
    command = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(3600)"]
    child = subprocess.Popen(command)
    files.write(Path(f"child-{runtime.rank()}"), str(child.pid).encode())
    while True:
        time.sleep(1)


def _rank_1_is_killed() -> int:
    if runtime.rank() == 1:
        until(AttemptDir(runtime.attempt_dir()).alive(0).exists, "rank 0 is alive")
        os.kill(os.getpid(), signal.SIGKILL)
    return _wait()


def _rank_1_fails() -> int:
    if runtime.rank() == 1:
        runtime.finish(runtime.attempt_dir(), 1, Result.FAILED, Cause.USER, "a mistake of the user's")
        return 1
    while True:
        time.sleep(1)


def _finish(result: Result, **info: Any) -> int:
    runtime.finish(runtime.attempt_dir(), runtime.rank(), result, **info)
    return runtime.EXIT_YIELDED if result is Result.YIELDED else 0


_MODES = {
    "report": _report,
    "wait": _wait,
    "stubborn": _stubborn,
    "rank-1-is-killed": _rank_1_is_killed,
    "rank-1-fails": _rank_1_fails,
}


def main(mode: str) -> int:
    """One rank of a contract job."""
    if mode == "broken":
        __import__("no_such_package")
    runtime.install()
    return _MODES[mode]()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
