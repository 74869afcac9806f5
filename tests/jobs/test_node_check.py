"""The look at a node before a rank starts: its arithmetic on numbers, and all of it on folders of ours."""

import json
import os
import threading
import time
from pathlib import Path

import pytest

from jobs import files, memory, node_check
from jobs.files import AttemptDir
from jobs.node_check import few_cores, little_memory, missing_claim, unfit, wrong_clock
from jobs.spec import Cause, JobSpec, Resources

HOUR = 3600.0


@pytest.fixture
def attempt(tmp_path: Path) -> AttemptDir:
    made = AttemptDir(tmp_path / "001")
    made.path.mkdir()
    write_intent(made, tag="mine")
    return made


def write_intent(attempt: AttemptDir, **record: object) -> None:
    attempt.intent.write_text(json.dumps(record))


def job_of(attempt: AttemptDir, **size: float) -> JobSpec:
    resources = Resources(**({"mem_gb": 0.1} | size))  # type: ignore[arg-type]
    return JobSpec(tag="mine", argv=("true",), attempt_dir=attempt.path, cwd=attempt.path, resources=resources)


def test_this_machine_is_fit_for_a_small_job_and_nothing_is_left_behind(attempt: AttemptDir) -> None:
    told: list[str] = []
    assert unfit(job_of(attempt), attempt, ranks=[0], tell=told.append) is None
    assert not told and files.names(attempt.path) == []


def test_too_few_cores_and_too_little_memory_are_found_where_we_stand(attempt: AttemptDir) -> None:
    has = len(os.sched_getaffinity(0))
    found = unfit(job_of(attempt, cpus_per_rank=has + 1), attempt, ranks=[0], tell=str)
    assert found is not None and found.cause is Cause.NODE
    assert found.message == f"1 ranks x {has + 1} cores = {has + 1} were asked for, and this node gives {has}"
    found = unfit(job_of(attempt, mem_gb=1e6), attempt, ranks=[0], tell=str)
    assert found is not None and found.cause is Cause.NODE and "1e+06 GB of memory were asked for" in found.message


def test_memory_and_store_are_looked_at_once_per_node(attempt: AttemptDir) -> None:
    job = job_of(attempt, mem_gb=1e6, nodes=2, ranks_per_node=2)
    looked = [unfit(job, attempt, ranks=[rank], tell=str) is not None for rank in range(4)]
    assert looked == [True, False, True, False]


def test_an_attempt_directory_that_takes_no_file_is_the_nodes_fault(attempt: AttemptDir) -> None:
    gone = AttemptDir(attempt.path / "gone")
    found = unfit(job_of(attempt), gone, ranks=[0], tell=str)
    assert found is not None and found.cause is Cause.NODE and "cannot be written here" in found.message


def test_cores_are_those_of_all_ranks_that_start_here() -> None:
    size = Resources(ranks_per_node=4, cpus_per_rank=2)
    assert few_cores(size, ranks=4, has=8) is None
    assert few_cores(size, ranks=1, has=2) is None
    assert few_cores(size, ranks=4, has=7) is not None


@pytest.mark.parametrize(
    ("available", "limit", "words"),
    [(100.0, None, None), (91.0, 91.0, None), (None, None, None), (80.0, None, "80.0 GB available"),
     (500.0, 50.0, "limit on this node is 50.0 GB")],
)  # fmt: skip
def test_memory_is_enough_with_a_tenth_less(available: float, limit: float, words: str | None) -> None:
    said = little_memory(Resources(mem_gb=100), available_gb=available, limit_gb=limit)
    assert said is None if words is None else words in str(said)


def test_a_clock_is_wrong_when_two_others_agree_against_it() -> None:
    assert wrong_clock(2 * HOUR, 1.0) == "this node's clock is 7200 s behind the file server's"
    assert "ahead of" in str(wrong_clock(-2 * HOUR, -100.0))
    assert wrong_clock(2 * HOUR, 2 * HOUR) is None, "it may be the file server's"
    assert wrong_clock(2 * HOUR, None) is None
    assert wrong_clock(0.9 * HOUR, 0.0) is None


def test_a_file_servers_clock_that_is_off_is_told_and_no_more(attempt: AttemptDir, monkeypatch) -> None:
    write_intent(attempt, tag="mine", time=time.time() - 2 * HOUR)
    monkeypatch.setattr(node_check.time, "time", lambda: os.stat(attempt.intent).st_mtime - 2 * HOUR)
    told: list[str] = []
    assert unfit(job_of(attempt), attempt, ranks=[0], tell=told.append) is None
    assert told == ["the file server's clock differs from this node's by 7200 s; nothing acts on it"]
    write_intent(attempt, tag="mine", time=time.time() + 2 * HOUR)
    found = unfit(job_of(attempt), attempt, ranks=[0], tell=told.append)
    assert found is not None and found.cause is Cause.NODE


def test_the_attempt_that_the_job_was_submitted_for_is_seen(attempt: AttemptDir) -> None:
    assert missing_claim(attempt, tag="mine", within_s=0) is None
    assert "an attempt of mine, and this job is yours" in str(missing_claim(attempt, tag="yours", within_s=0))
    nowhere = AttemptDir(attempt.path.parent / "nowhere" / "001")
    assert "is its store mounted?" in str(missing_claim(nowhere, tag="mine", within_s=0))


def test_a_damaged_claim_is_told_where_it_is_used(attempt: AttemptDir) -> None:
    attempt.intent.write_text("{")
    assert missing_claim(attempt, tag="mine", within_s=0) is None


def test_a_folder_that_nfs_shows_late_is_waited_for(attempt: AttemptDir) -> None:
    attempt.path.rmdir()
    late = threading.Timer(0.2, attempt.path.mkdir)
    late.start()
    assert missing_claim(attempt, tag="mine", within_s=20) is None
    late.join()


def test_the_least_limit_of_all_cgroups_above_counts(tmp_path: Path) -> None:
    proc, root = tmp_path / "cgroup", tmp_path / "fs"
    (root / "slurm" / "job_7").mkdir(parents=True)
    proc.write_text("0::/slurm/job_7\n")
    assert memory.limit_gb(proc=proc, root=root) is None
    (root / "slurm" / "job_7" / "memory.max").write_text("max\n")
    assert memory.limit_gb(proc=proc, root=root) is None
    (root / "slurm" / "memory.max").write_text(f"{8 << 30}\n")
    assert memory.limit_gb(proc=proc, root=root) == 8.0


def test_cgroups_of_the_first_version_have_limits_too(tmp_path: Path) -> None:
    proc, root = tmp_path / "cgroup", tmp_path / "fs"
    (root / "memory" / "job").mkdir(parents=True)
    proc.write_text("12:cpuset:/other\n4:memory:/job\n0::/\n")
    (root / "memory" / "job" / "memory.limit_in_bytes").write_text(f"{3 << 30}\n")
    assert memory.limit_gb(proc=proc, root=root) == 3.0


def test_what_the_kernel_could_give_is_read_as_it_writes_it(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       24600000 kB\nMemFree:  1 kB\nMemAvailable:    2097152 kB\n")
    assert memory.available_gb(meminfo=meminfo) == 2.0
    assert memory.available_gb(meminfo=tmp_path / "none") is None
