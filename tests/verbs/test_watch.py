"""`stx status` in real terminals: narrow and wide, redrawn in place, left in every way there is."""

import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from stx.coordinator import lease
from stx.verbs.screen import CLEAR, ENTER, LEAVE

ROW = re.compile(rb"\033\[\d+;1H")
ESCAPE = re.compile(r"\033\[[?\d;]*[a-zA-Z]")
COLOUR = re.compile(rb"\033\[[1-9]\d*m")
Start = Callable[..., Any]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_watch_of_a_thousand_stages_fits_its_terminal(driven: Any, terminal: Start, columns: int) -> None:
    one = terminal("status", "big", "--watch", columns=columns)
    one.says("Ctrl-C leaves, nothing stops")
    lines = one.text.splitlines()
    assert len(lines) == 24
    assert lines[0].startswith("big: 2 FAILED, 40 RUNNING")
    assert "ValueError" in one.text
    rows = [line.split() for line in lines if line.startswith("run:seed=")]
    states = [word for row in rows for word in row if word in {"FAILED", "RUNNING"}]
    assert states[:2] == ["FAILED", "FAILED"]
    assert states.count("RUNNING") >= 10
    assert re.search(r"^and 9\d\d more: \d+ RUNNING", one.text, re.MULTILINE)
    assert re.search(r"^run +(999 +)?2 +40", one.text, re.MULTILINE)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_status_folds_a_large_sweep_and_keeps_within_its_terminal(terminal: Start, sweep: Any, columns: int) -> None:
    one = terminal("status", columns=columns, lines=60)
    assert one.ends() == 0
    told = one.text.split("next:")[0]
    assert "(--all lists them)" in " ".join(told.split())
    assert re.search(r"^run +(999 +)?2 +40", told, re.MULTILINE)
    assert re.search(r"^latents .*DONE", told, re.MULTILINE)
    assert "16 wide and the model wants 32" in " ".join(told.split())
    written = ESCAPE.sub("", one.raw.decode()).split("next:")[0].splitlines()
    assert max(len(line) for line in written) <= columns


def test_only_lines_that_changed_are_written_again(driven: Any, terminal: Start) -> None:
    one = terminal("status", "big", "--watch", columns=40)
    one.says("Ctrl-C leaves")
    drawn = len(one.raw)
    driven.beat(driven.runs[3], images=75)
    one.until(lambda: re.search(r"run:seed=3 +RUNNING +75", one.text) is not None)
    again = one.raw[drawn:]
    assert CLEAR.encode() not in again
    assert len(ROW.findall(again)) <= 6
    assert len(again) < 600


def test_another_size_is_drawn_at_once(driven: Any, terminal: Start) -> None:
    one = terminal("status", "big", "--watch", columns=120)
    one.says("Ctrl-C leaves")
    one.resize(50, 16)
    began = time.monotonic()
    one.until(lambda: "Ctrl-C leaves" in one.screen.display[15])
    assert time.monotonic() - began < 1.5
    assert len(one.text.splitlines()[2]) <= 50


def test_watch_ends_with_the_coordinator_and_leaves_the_table_behind(sweep: Any, terminal: Start) -> None:
    held = lease.acquire(sweep.experiment, lease_s=60.0)
    one = terminal("status", "big", "--watch", columns=120, lines=50)
    one.says("Ctrl-C leaves")
    held.release()
    assert one.ends() == 0
    left = one.raw.split(LEAVE.encode())[1]
    assert re.search(rb"; left \d+ s ago", b" ".join(left.split()))
    assert b"next: " in left and b"stx logs big/run:seed=0 --failed" in left


@pytest.mark.parametrize(("how", "code"), [("key", 130), (signal.SIGTERM, 143)])
def test_leaving_gives_the_terminal_back(driven: Any, terminal: Start, how: str | int, code: int) -> None:
    one = terminal("status", "big", "--watch")
    one.says("Ctrl-C leaves")
    os.kill(one.pid, signal.SIGINT if how == "key" else int(how))
    assert one.ends() == code
    assert one.raw.count(ENTER.encode()) == one.raw.count(LEAVE.encode()) == 1
    assert b"Traceback" not in one.raw


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
def test_ctrl_z_gives_the_shell_its_screen_and_fg_draws_anew(driven: Any, terminal: Start) -> None:
    shell = terminal(argv=("bash", "--norc", "--noprofile", "-i"), columns=90, PS1="READY> ")
    shell.says("READY>")
    shell.type(f"{sys.executable} -m stx.cli status big --watch\n")
    shell.says("Ctrl-C leaves")
    shell.type("\x1a")
    shell.until(lambda: LEAVE.encode() in shell.raw and b"Stopped" in shell.raw)
    drawn = len(shell.raw)
    shell.type("fg\n")
    shell.until(lambda: b"Ctrl-C leaves" in shell.raw[drawn:] and CLEAR.encode() in shell.raw[drawn:])
    shell.type("\x03")
    shell.until(lambda: shell.raw.count(LEAVE.encode()) == 2)
    shell.type("exit\n")


def test_no_color_takes_the_colours_and_nothing_else(driven: Any, terminal: Start) -> None:
    coloured = terminal("status", "big", "--watch")
    coloured.says("Ctrl-C leaves")
    assert COLOUR.search(coloured.raw)
    plain = terminal("status", "big", "--watch", NO_COLOR="1")
    plain.says("Ctrl-C leaves")
    assert not COLOUR.search(plain.raw)
    assert re.sub(r"\d\d:\d\d:\d\d|\d+ s|-", "", plain.text).split() == (
        re.sub(r"\d\d:\d\d:\d\d|\d+ s|-", "", coloured.text).split()
    )


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(driven: Any, terminal: Start) -> None:
    one = terminal("status", "big", "--watch", TERM="dumb")
    one.says("big: 2 FAILED, 40 RUNNING")
    driven.start(driven.runs[500])
    one.says("run:seed=500 RUNNING")
    assert b"\033" not in one.raw
