"""What happens to stages: killed, shared by two experiments, cancelled, many of them at a time."""

import json
import os
import signal
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


def processes(slurm: OnSlurm, program: str) -> list[int]:
    """Processes of attempts of this store that run a program of ours."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if program in words and any(str(slurm.stx.store) in word for word in words):
                found.append(int(entry.name))
    return found


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
    for pid in processes(slurm, program):
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
    path = write(slurm, SLEEPS.replace("SECONDS", "30"))
    process = slurm.start(path)
    wait_for(lambda: started(slurm) == 1, limit=60)
    slurm.stx.run("cancel", "cmd")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 3, f"{out}\n{err}"
    assert not slurm.jobs()
    states = {line["name"]: line["state"] for line in _status(slurm)}
    assert states == {"a": "CANCELLED", "b": "CANCELLED"} or states == {"a": "CANCELLED", "b": "BLOCKED"}
    write(slurm, SLEEPS.replace("SECONDS", "30"))
    slurm.stx.run("retry", "cmd", "--cluster", str(slurm.file))
    assert slurm.submit(path).returncode == 0
    assert started(slurm) == 2


def test_a_sweep_of_sixty_goes_through_with_few_questions(slurm):
    points = list(range(60))
    program = "{kind: command, argv: [sh, -c, 'echo x > $STX_OUTPUT/a'], version: one"
    text = f"name: many\nstages:\n  a: {program}, sweep: {{seed: {points}}}}}\n"
    begin = time.monotonic()
    slurm.submit(write(slurm, text))
    assert len(slurm.stx.digests()) == 60
    assert slurm.commands.calls("sbatch") == 60
    assert slurm.commands.calls("squeue") <= time.monotonic() - begin + 3
    wait_for(lambda: not slurm.jobs(), limit=30)


def _status(slurm: OnSlurm) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(slurm.stx.run("status", "cmd", "--json").stdout)["experiments"][0][
        "stages"
    ]
    return found
