import os
import subprocess
import sys
from pathlib import Path

from jobs import processes
from jobs.contract import until


def test_a_process_is_seen_with_its_group_and_session() -> None:
    me = processes.me()
    assert (me.pid, me.group, me.session) == (os.getpid(), os.getpgrp(), os.getsid(0))
    assert me in list(processes.every())
    assert processes.owned(me.pid)


def test_a_name_with_parentheses_and_spaces_is_no_trouble(tmp_path: Path) -> None:
    program = tmp_path / "a) Z (b"
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([program, "3600"])
    try:
        until(lambda: bool(processes.arguments(child.pid)), "it runs")
        seen = processes.look(child.pid)
        assert seen is not None
        assert seen.session == os.getsid(0)
        assert processes.arguments(child.pid) == [os.fsencode(program), b"3600"]
    finally:
        child.kill()
        child.wait()
    assert processes.look(child.pid) is None


def test_a_process_that_waits_to_be_reaped_has_ended() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    until(lambda: processes.look(pid) is None, "it has ended")
    zombie = processes.look(pid, zombies=True)
    assert zombie is not None
    assert zombie.pid == pid
    os.waitpid(pid, 0)
    assert processes.look(pid, zombies=True) is None
    assert not processes.owned(pid)
    assert processes.arguments(pid) == []


def test_variables_are_those_a_process_was_started_with() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={"NAME": "a=b c"})
    try:
        until(lambda: processes.variable(child.pid, "NAME") == "a=b c", "it runs")
        assert processes.variable(child.pid, "AME") is None
        assert processes.variable(child.pid, "NAM") is None
    finally:
        child.communicate(b"\n")


def test_a_unique_id_has_four_parts_and_differs_between_processes() -> None:
    child = subprocess.Popen(["sleep", "3600"])
    other = processes.look(child.pid)
    child.kill()
    child.wait()
    assert other is not None
    names = {processes.unique_id(process) for process in (processes.me(), other)}
    assert len(names) == 2
    for name in names:
        pid, start_time, boot, machine = name.split(":")
        assert pid.isdecimal()
        assert start_time.isdecimal()
        assert (boot, machine) == (processes.boot_id(), processes.machine())


def test_a_proc_that_hides_others_is_known_by_its_mount() -> None:
    line = "22 1 0:21 / /proc rw,relatime - proc proc rw,hidepid={}\n"
    hiding = {word: processes.hides_others(line.format(word)) for word in ("0", "off", "1", "2", "invisible")}
    assert hiding == {"0": False, "off": False, "1": True, "2": True, "invisible": True}
    assert not processes.hides_others("22 1 0:21 / /proc rw,relatime - proc proc rw\n")
    assert processes.owner(os.getpid()) == os.geteuid()
    assert processes.others_are_seen() in (True, False)
