"""Where the coordinator lives when there is no scheduler: detached, and nowhere but in single passes (--once, cron)."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios

import pytest

from tests.cli.shell import SLOW, Shell, wait_until

# The first stage ends when GO is there.
TWO = """
name: two
stages:
  first: {kind: command, argv: [sh, -c, "echo begun; while ! test -e GO; do sleep 0.1; done; touch $STX_OUTPUT/x"]}
  second: {kind: command, argv: [sh, -c, "touch $STX_OUTPUT/x"], inputs: {first: first}}
"""


@pytest.mark.slow
def test_a_detached_coordinator_outlives_the_terminal_of_its_submit(stx: Shell) -> None:
    """As when an ssh session ends: the terminal goes, and whoever sits at it gets a SIGHUP."""
    path = stx.write(SLOW)
    master, terminal = pty.openpty()
    shell = subprocess.Popen(
        ["sh", "-c", f"{sys.executable} -m stx.cli submit {path} --detach; sleep 60"],
        cwd=stx.folder,
        env=stx.env,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(terminal)
    said = b""
    while b"detached: process" not in said:
        said += os.read(master, 4096)
    wait_until(lambda: stx.log_says("begun"))
    os.close(master)
    assert shell.wait(timeout=30) == -signal.SIGHUP
    (stx.folder / "go").touch()
    wait_until(lambda: stx.states("slow") == {"slow": "DONE"})
    wait_until(lambda: "slow DONE" in stx.store.experiment("slow").log.read_text())


@pytest.mark.slow
def test_one_pass_starts_what_is_ready_and_leaves(stx: Shell) -> None:
    path = str(stx.write(TWO))
    assert "two: started 1 attempt (first); now 1 WAITING, 1 QUEUED" in stx("submit", path, "--once").stderr
    wait_until(lambda: stx.log_says("begun"))
    assert "two: started nothing; now 1 WAITING, 1 RUNNING" in stx("submit", path, "--once").stderr
    assert stx.json("status", "two")["experiments"][0]["coordinator"] is None
    (stx.folder / "go").touch()
    wait_until(lambda: any(stx.store.stages.glob("*/artifact.json")))
    assert "started 1 attempt (second)" in stx("submit", path, "--once").stderr
    wait_until(lambda: len(list(stx.store.stages.glob("*/artifact.json"))) == 2)
    done = stx("submit", path, "--once").stderr
    assert "started nothing; now 2 DONE" in done and "two: all 2 stages done" in done
    assert "all 2 stages done" not in stx("submit", path, "--once").stderr  # the report is written once


@pytest.mark.slow
def test_a_pass_beside_a_coordinator_has_nothing_to_do_and_nothing_is_wrong(stx: Shell) -> None:
    path = str(stx.write(SLOW))
    stx("submit", path, "--detach")
    assert "another coordinator is at it; nothing to do" in stx("submit", path, "--once").stderr
    (stx.folder / "go").touch()
    wait_until(lambda: stx.states("slow") == {"slow": "DONE"})


@pytest.mark.slow
def test_cron_is_given_a_line_that_works_without_a_shells_environment(stx: Shell) -> None:
    path = stx.write(TWO)
    (stx.folder / "cron.yaml").write_text("coordinator: {where: cron}\nstages: {default: {mem_gb: 1}}\n")
    done = stx("submit", str(path), "--cluster", "cron.yaml", "--set", "stages.second.seed=1")
    assert "started 1 attempt (first)" in done.stderr and "nobody's crontab" in done.stderr
    (line,) = done.stdout.splitlines()
    times, command = line[:12], line[12:]
    assert times == "*/5 * * * * "
    (stx.folder / "go").touch()
    wait_until(lambda: any(stx.store.stages.glob("*/artifact.json")))
    slots = {name: stx.env[name] for name in ("STX_SLOTS", "STX_CORES")}
    subprocess.run(["/bin/sh", "-c", command.replace("\\%", "%")], cwd="/", env=slots, check=True, timeout=60)
    assert "started 1 attempt (second)" in stx.store.experiment("two").log.read_text()
    wait_until(lambda: len(list(stx.store.stages.glob("*/artifact.json"))) == 2)
