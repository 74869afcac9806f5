"""Kill anything, anywhere, any number of times: the same command again ends with the payloads of an untouched run.

Kills are placed by fault points (before, after and inside every operation on files, see tools/chaos/faults) in the
worker, the supervisor and the coordinator, and at random times. The seed is printed; STX_CRASH_SEED repeats a schedule.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FAULTS = HERE.parents[1] / "tools" / "chaos" / "faults"
MICRO = HERE / "micro.yaml"
# The most fault points that a life of each program passes on the micro stages: a larger number would never fire.
POINTS = {"stx.worker run": 200, "jobs.exec": 20, "stx.cli submit": 1500}


class Chaos:
    """A seeded schedule of kills on one store."""

    def __init__(self, stx, *, seed: int, tickets: int) -> None:
        self.stx = stx
        self.chooser = random.Random(seed)
        self.folder = stx.folder / "faults"
        self.folder.mkdir()
        for number in range(tickets):
            program = self.chooser.choices(list(POINTS), weights=[8, 2, 2])[0]
            ticket = {"program": program, "fault": "kill", "point": self.chooser.randint(1, POINTS[program])}
            (self.folder / f"{number:04d}.ticket").write_text(json.dumps(ticket))
        self.random_kills = 0

    @property
    def extra(self) -> dict[str, str]:
        return {
            "PYTHONPATH": os.pathsep.join([str(FAULTS), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "STX_FAULT_TICKETS": str(self.folder),
            "STX_CLUSTER": str(HERE / "eager.yaml"),
        }

    def kills(self) -> list[dict]:
        path = self.folder / "faults.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def kill_one(self) -> None:
        """SIGKILL a random process of this store: worker, supervisor or coordinator."""
        victims = self.stx.processes()
        if victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.chooser.choice(victims), signal.SIGKILL)
                self.random_kills += 1

    def submit_until_done(self, *, random_kills: int, rounds: int = 60) -> int:
        """Run the same command again and again while killing; the number of submits it took."""
        stop = threading.Event()

        def killer() -> None:
            while self.random_kills < random_kills and not stop.wait(self.chooser.uniform(1, 6)):
                self.kill_one()

        thread = threading.Thread(target=killer)
        thread.start()
        try:
            for number in range(1, rounds + 1):
                process = self.stx.start("submit", str(MICRO), extra=self.extra)
                out, err = communicate(process)
                if process.returncode == 0:
                    return number
                if process.returncode == 3:
                    # So many kills of one stage that its budget is spent: a person would look, and say retry.
                    self.stx.run("retry", "*", expect=None)
                assert process.returncode in (-signal.SIGKILL, 3), f"exit {process.returncode}\n{out}\n{err}"
        finally:
            stop.set()
            thread.join()
        pytest.fail(f"not done after {rounds} submits\n{out}\n{err}")


def communicate(process: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        return process.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"a submit hung for 600 s\n{out}\n{err}")


def crash_run(stx, untouched: dict[str, str], *, capsys, seed: int, tickets: int, random_kills: int) -> None:
    chaos = Chaos(stx, seed=seed, tickets=tickets)
    start = time.monotonic()
    submits = chaos.submit_until_done(random_kills=random_kills)
    kills = chaos.kills()
    by_program = Counter(kill["program"] for kill in kills)
    in_save = sum(kill["in_save"] for kill in kills)
    attempts, seconds = sum(stx.attempts().values()), time.monotonic() - start
    with capsys.disabled():  # the log of a passed run has the figures, too
        print(
            f"\nseed {seed}: {len(kills)} kills at fault points {dict(by_program)}, {in_save} of them inside a save, "
            f"{chaos.random_kills} at random times; {submits} submits, {attempts} attempts, {seconds:.0f} s"
        )
    assert kills, "no fault point was reached: the injection is broken"
    assert stx.digests() == untouched


def seeds(count: int) -> list[int]:
    first = int(os.environ.get("STX_CRASH_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
    return list(range(first, first + count))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_runs_end_with_the_payloads_of_an_untouched_one(stx, micro, capsys):
    crash_run(stx, micro.digests(), capsys=capsys, seed=seeds(1)[0], tickets=16, random_kills=4)


@pytest.mark.full
@pytest.mark.timeout(7200)
def test_many_killed_runs_end_with_the_payloads_of_an_untouched_one(new_stx, micro, capsys):
    for seed in seeds(5):
        crash_run(new_stx(f"killed-{seed}"), micro.digests(), capsys=capsys, seed=seed, tickets=40, random_kills=10)
