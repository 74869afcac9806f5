"""The driver as a program: what it starts, it ends."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from tools.chaos.processes import members

ROOT = Path(__file__).parents[3]
MICRO = ROOT / "tests" / "integration" / "micro.yaml"


def test_ctrl_c_twice_ends_everything_that_was_started(tmp_path):
    command = [sys.executable, str(ROOT / "tools" / "chaos"), str(MICRO), "--seed", "5", "--store-root", str(tmp_path)]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    folder = tmp_path / "chaos-5" / "untouched"
    try:
        until = time.monotonic() + 60
        while not members(folder) and time.monotonic() < until:
            time.sleep(0.05)
        assert members(folder)
        driver.send_signal(signal.SIGINT)
        time.sleep(0.01)
        driver.send_signal(signal.SIGINT)  # an impatient person, while the first one is being obeyed
        _, said = driver.communicate(timeout=60)
    finally:
        driver.kill()
    assert driver.returncode == 130
    assert "interrupted; every process that was started is ended" in said
    assert members(folder) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    command = [sys.executable, str(ROOT / "tools" / "chaos"), str(MICRO), "--store-root", str(tmp_path / "file")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert "--store-root" in ran.stderr and "cannot be made: Not a directory" in ran.stderr
    assert "Traceback" not in ran.stderr
