"""What happens to stages: killed, shared by two experiments, cancelled, many of them at a time."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.slurm.conftest import OnSlurm
from tests.slurm_cluster import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.sampled(seconds=35)]


def write(slurm: OnSlurm, text: str, *, name: str = "e.yaml") -> Path:
    path = slurm.stx.folder / name
    path.write_text(text.replace("LOG", str(slurm.stx.folder / "started")))
    return path


def started(slurm: OnSlurm) -> int:
    log = slurm.stx.folder / "started"
    return len(log.read_text().splitlines()) if log.exists() else 0


SLEEPS = """\
name: cmd
stages:
  a: {kind: command, argv: [sh, -c, 'echo x >> LOG; sleep SECONDS; echo done > $STX_OUTPUT/a'], version: one}
  b: {kind: command, argv: [sh, -c, 'cat $STX_INPUT_A/a > $STX_OUTPUT/b'], version: one, inputs: {a: a}}
"""


@pytest.mark.parametrize("program", ["stx.worker", "jobs.exec"])
def test_a_killed_rank_or_supervisor_costs_one_attempt(slurm, program):
    process = slurm.start(write(slurm, SLEEPS.replace("SECONDS", "6")))
    wait_for(lambda: started(slurm) == 1, limit=60)
    for pid in slurm.processes(program):
        os.kill(pid, signal.SIGKILL)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, f"{out}\n{err}"
    assert started(slurm) == 2
    assert sorted(slurm.stx.attempts().values()) == [1, 2]


def test_two_experiments_that_want_the_same_stage_run_it_once(slurm):
    text = SLEEPS.replace("SECONDS", "8")
    first = slurm.start(write(slurm, text, name="one.yaml"))
    wait_for(lambda: started(slurm) == 1, limit=60)
    other = text.replace("name: cmd", "name: other").replace("/b'], version: one", "/b'], version: two")
    second = slurm.start(write(slurm, other, name="two.yaml"))
    for process in (first, second):
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, f"{out}\n{err}"
    assert started(slurm) == 1
    assert len(slurm.stx.digests()) == 3


def test_cancelled_stages_are_gone_from_the_queue_and_submitting_again_goes_on(slurm):
    go = slurm.stx.folder / "go"
    path = write(slurm, SLEEPS.replace("sleep SECONDS", f"while ! test -e {go}; do sleep 1; done"))
    process = slurm.start(path)
    wait_for(lambda: started(slurm) == 1, limit=60)
    slurm.stx.run("cancel", "cmd")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 3, f"{out}\n{err}"
    assert not slurm.jobs()
    states = {line["name"]: line["state"] for line in _status(slurm)}
    assert states == {"a": "CANCELLED", "b": "CANCELLED"} or states == {"a": "CANCELLED", "b": "BLOCKED"}
    go.touch()
    assert "what was cancelled runs again: a, b" in slurm.submit(path).stderr
    assert started(slurm) == 2


def cpu_s(pid: int) -> float:
    """Processor seconds of a process so far, its ended children included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def peak_mb(pid: int) -> float:
    """The most memory that a process ever had."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


# Of the sweep's programs each takes a moment; the other one ends when GO is there.
MANY = """\
name: many
stages:
  a: {kind: command, argv: [sh, -c, 'echo x > $STX_OUTPUT/a'], version: one, sweep: {seed: POINTS}}
  last: {kind: command, argv: [sh, -c, 'while ! test -e GO; do sleep 1; done'], version: one}
"""


@pytest.mark.sampled(seconds=60)
@pytest.mark.parametrize(
    "points", [60, pytest.param(1000, marks=[pytest.mark.full, pytest.mark.timeout(3600)])], ids=["60", "1000"]
)
def test_a_large_sweep_goes_through_with_few_questions_and_a_small_coordinator(slurm, points, record_property):
    go = slurm.stx.folder / "go"
    text = MANY.replace("POINTS", str(list(range(points)))).replace("GO", str(go))
    begin = time.monotonic()
    process = slurm.start(write(slurm, text))
    wait_for(lambda: len(list(slurm.stx.store.glob("stages/*/artifact.json"))) == points, limit=3500, every=1.0)
    polls, idle = time.monotonic() - begin, cpu_s(process.pid)
    time.sleep(20)
    idle = (cpu_s(process.pid) - idle) / 20
    memory = peak_mb(process.pid)
    go.touch()
    out, err = process.communicate(timeout=200)
    record_property("figures", f"{points} points in {polls:.0f} s: {memory:.0f} MB, idle {100 * idle:.1f}% of a core")
    assert process.returncode == 0, f"{out}\n{err}"
    assert len(slurm.stx.digests()) == points + 1
    assert slurm.commands.calls("sbatch") == points + 1
    assert slurm.commands.calls("squeue") <= time.monotonic() - begin + 3, "poll_s is 1"
    assert memory < 300
    assert idle < 0.05
    wait_for(lambda: not slurm.jobs(), limit=30)


FULL = """\
name: cmd
stages:
  a: {kind: command, argv: [sh, -c, 'echo x >> LOG; head -c 5000000 /dev/zero > $STX_OUTPUT/a'], version: one}
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_a_full_store_delays_a_stage_and_it_goes_on_when_space_is_back(slurm):
    disk = slurm.stx.folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(disk)], check=True)
    try:
        (disk / "filler").write_bytes(bytes(14_000_000))
        process = slurm.start(write(slurm, FULL), "--store", str(disk / "store"))
        wait_for(lambda: "NO_SPACE" in json.dumps(_status(slurm, "--store", str(disk / "store"))), limit=90, every=1.0)
        (disk / "filler").unlink()
        out, err = process.communicate(timeout=150)
        assert process.returncode == 0, f"{out}\n{err}"
        assert started(slurm) > 1
        assert len(list(disk.glob("store/stages/*/artifact.json"))) == 1
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _status(slurm: OnSlurm, *options: str) -> list[dict[str, str]]:
    text = slurm.stx.run("status", "cmd", "--json", *options, expect=None).stdout
    found: list[dict[str, str]] = json.loads(text)["experiments"][0]["stages"] if text.startswith("{") else []
    return found
