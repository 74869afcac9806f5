"""What stands still for longer than its limit is tried again, whoever of a job was stopped, and the experiment ends."""

import os
import signal
import time
from pathlib import Path

import pytest

from jobs.files import AttemptDir
from stx import records
from tests.cli.shell import SLOW, Shell, wait_until

CLUSTER = """
stages: {default: {mem_gb: 0.5}}
hang_after_s: {other: 5}
stop_lead_s: 5
backoff_s: [0]
"""


@pytest.mark.slow
@pytest.mark.parametrize("who", ["rank", "rank and supervisor"])
def test_a_job_that_was_stopped_for_good_is_tried_again(stx: Shell, who: str) -> None:
    (stx.folder / "c.yaml").write_text(CLUSTER)
    process = stx.start("submit", str(stx.write(SLOW)), "--cluster", "c.yaml")
    try:
        wait_until(lambda: stx.log_says("begun"))
        (path,) = stx.store.stages.glob("*/attempts/001")
        first = AttemptDir(path)
        wait_until(first.heartbeat.exists)
        time.sleep(2.0)  # the watchdog has seen the phase
        stopped = [int(first.alive(0).read_text())]
        stopped += [records.read(first.started)["pid"]] if who == "rank and supervisor" else []
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        second = AttemptDir(Path(str(path).replace("001", "002")))
        wait_until(second.heartbeat.exists, seconds=120.0)
        (stx.folder / "go").touch()
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, f"{out}\n{err}"
    finally:
        process.kill()
        process.wait()
    assert records.read(first.outcome(0))["cause"] == "HANG"
    assert "in _wait" in first.stacks(0).read_text()
    assert str(first.stacks(0)) in stx("show", "slow").stdout
