"""The injected faults of tools/chaos/faults do what a ticket says, against the real operating system: each in a program
of its own, which takes its ticket as every process of a chaos run does.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAULTS = ROOT / "tools" / "chaos" / "faults"
HEAD = """
import errno, os, sys, time
from pathlib import Path
from jobs import files
store = Path(os.environ["STX_FAULT_STORE"])
"""


class Bench:
    """A store, a folder of tickets, and programs that meet them."""

    def __init__(self, folder):
        self.store, self.tickets = folder / "store", folder / "tickets"
        self.store.mkdir()
        self.tickets.mkdir()

    def ticket(self, fault, *, point=1, **more):
        record = {"program": "-c", "fault": fault, "point": point, **more}
        (self.tickets / "0001.ticket").write_text(json.dumps(record))

    def start(self, text, *arguments):
        env = os.environ | {"STX_FAULT_TICKETS": str(self.tickets), "STX_FAULT_STORE": str(self.store)}
        env |= {"PYTHONPATH": f"{FAULTS}:{ROOT}"}
        argv = [sys.executable, "-c", HEAD + text, *arguments]
        return subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, text, *arguments):
        process = self.start(text, *arguments)
        out, _ = process.communicate(timeout=60)
        return process.returncode, out

    def happened(self):
        path = self.tickets / "faults.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_a_kill_comes_at_its_point_before_after_or_inside_an_operation(bench):
    seen = []
    for point in range(1, 20):
        bench.ticket("kill", point=point)
        code, _ = bench.run("files.write(store / 'record', b'0123456789')")
        if code == 0:
            break
        assert code == -signal.SIGKILL
        what = bench.happened()[-1]
        seen.append(f"{what['when']} {what['operation']}")
        assert what["at"] == point and what["path"].startswith(str(bench.store))
        if seen[-1] == "inside write":
            assert Path(what["path"]).read_bytes() == b"01234", "a part of the bytes was written, then it died"
        assert (bench.store / "record").exists() == (point > seen.index("before open") + 8)
        for path in bench.store.iterdir():
            path.unlink()
    assert seen == [
        "before open", "after open", "before write", "inside write", "after write", "before fsync", "after fsync",
        "before rename", "after rename", "before fsync", "after fsync",
    ]  # fmt: skip


@pytest.mark.parametrize("fault", ["enospc", "edquot", "eio", "estale", "erofs"])
def test_an_error_strikes_as_many_operations_as_it_should_and_they_do_nothing(bench, fault):
    bench.ticket(fault, point=3, count=2, operation="open")
    code, out = bench.run("""
for number in range(5):
    try:
        files.write(store / str(number), b"x")
    except OSError as error:
        print(number, errno.errorcode[error.errno])
""")
    name = fault.upper()
    assert (code, out) == (0, f"1 {name}\n2 {name}\n")
    assert sorted(os.listdir(bench.store)) == ["0", "3", "4"]
    (what,) = bench.happened()
    assert (what["when"], what["operation"], what["in_save"]) == ("before", "open", False)


def test_an_error_lasts_for_its_time_or_until_it_is_called_off(bench):
    text = """
failed = 0
while True:
    try:
        files.write(store / "record", b"x")
        break
    except OSError:
        failed += 1
        if failed == 5 and len(sys.argv) > 1:
            Path(sys.argv[1]).touch()
        time.sleep(0.01)
print(failed)
"""
    bench.ticket("enospc", lasts_s=0.2)
    assert 3 < int(bench.run(text)[1]) < 60
    bench.ticket("enospc", lasts_s=1e6)
    assert int(bench.run(text, str(bench.tickets / "over"))[1]) == 5


def test_a_short_write_takes_half_and_says_so_and_files_completes_it(bench):
    bench.ticket("short", count=3)
    text = """
descriptor = os.open(store / "plain", os.O_WRONLY | os.O_CREAT)
print(os.write(descriptor, b"0123456789"))
files.write(store / "looped", b"0123456789")
"""
    assert bench.run(text) == (0, "5\n")
    assert (bench.store / "plain").read_bytes() == b"01234"
    assert (bench.store / "looped").read_bytes() == b"0123456789"
    assert bench.happened()[0]["when"] == "inside"


def test_one_operation_stalls(bench):
    bench.ticket("stall", operation="fsync", seconds=0.5)
    text = """
for _ in range(2):
    began = time.monotonic()
    files.append(store / "lines", b"x")
    print(time.monotonic() - began > 0.5)
"""
    assert bench.run(text) == (0, "True\nFalse\n")


@pytest.mark.parametrize(
    "act", ["files.read(store / 'there')", "files.write(store / 'new', b'x')", "os.listdir(store)"]
)
def test_a_store_that_stalls_blocks_reading_and_writing_until_it_answers(bench, act):
    (bench.store / "there").write_bytes(b"x")
    stall = bench.tickets / "stall"
    stall.write_text(str(time.time() + 3600))
    process = bench.start(f"print('begun', flush=True)\n{act}\nprint('done')")
    assert process.stdout.readline() == "begun\n"
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    stall.write_text(str(time.time() - 1))  # its time is over
    assert process.communicate(timeout=60)[0] == "done\n"


def test_the_wall_clock_jumps_and_the_monotonic_one_does_not(bench):
    bench.ticket("clock", point=2, operation="rename", seconds=-7200)
    text = """
before, monotonic = time.time(), time.monotonic()
for _ in range(2):
    files.write(store / "record", b"x")
    print(round((time.time() - before) / 3600), round((time.time_ns() / 1e9 - before) / 3600))
print(time.monotonic() - monotonic < 3600)
"""
    assert bench.run(text) == (0, "0 0\n-2 -2\nTrue\n")


def test_on_a_full_disk_the_blocks_of_a_file_can_still_be_written_and_linked(bench):
    (bench.store / "reserve").write_bytes(b" " * 100)
    (bench.tickets / "full").touch()
    text = """
def attempt(act):
    try:
        act()
        print("done")
    except OSError as error:
        print(errno.errorcode[error.errno])

reserve = os.open(store / "reserve", os.O_WRONLY)
attempt(lambda: os.write(reserve, b"the last word"))
attempt(lambda: os.ftruncate(reserve, 13))
attempt(lambda: os.link(store / "reserve", store / "outcome"))
attempt(lambda: os.write(reserve, b"longer than the blocks"))
attempt(lambda: os.mkdir(store / "folder"))
attempt(lambda: files.write(store / "record", b""))
"""
    assert bench.run(text) == (0, "done\ndone\ndone\nENOSPC\nENOSPC\nENOSPC\n")
    assert (bench.store / "outcome").read_bytes() == b"the last word"


WAYS = {
    "open": "open(store / 'x', 'w').write('text')",
    "Path.write_bytes": "(store / 'x').write_bytes(b'bytes')",
    "os.fdopen": "os.fdopen(os.open(store / 'x', os.O_WRONLY | os.O_CREAT), 'w').write('text')",
    "shutil.copytree": "import shutil; shutil.copytree(store / 'folder', store / 'x')",
    "shutil.rmtree": "import shutil; shutil.rmtree(store / 'folder')",
    "opener": "open(store / 'x', 'wb', opener=os.open).write(b'bytes')",
    "os.posix_spawn": "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 1, "
    "str(store / 'x'), os.O_WRONLY | os.O_CREAT, 0o644)]), 0)",
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_changing_the_store_passes_fault_points(bench, way):
    """An audit hook sees what Python opens, makes, renames and removes, by whatever function."""
    (bench.store / "folder").mkdir()
    (bench.store / "folder" / "file").write_text("x")
    (bench.tickets / "trace").mkdir()
    text = f"""
from injection import operations
log = os.open(store / "log", os.O_WRONLY | os.O_CREAT)
injector = operations.os.open.__closure__[0].cell_contents
missed = []
def hook(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if str(path).startswith(str(store)) and flags & operations.WRITING:
            if mode is not None:  # a FileIO says so before it opens anything: os.open must follow
                missed.append(str(path))
            elif injector.inside and str(path) in missed:
                missed.remove(str(path))
            elif not injector.inside:
                missed.append(str(path))
    elif event in ("os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.symlink"):
        if not injector.inside:
            missed.append(event)
sys.addaudithook(hook)
{WAYS[way]}
assert not missed, missed
"""
    code, out = bench.run(text)
    assert code == 0, out
    points = [
        json.loads(line) for path in (bench.tickets / "trace").iterdir() for line in path.read_text().splitlines()
    ][1:]
    assert len([point for point in points if point.get("when") == "before"]) > 1, points


def test_output_that_goes_into_the_store_passes_fault_points(bench):
    """The log of a rank is a file of the store, too: on a full disk a print raises."""
    (bench.tickets / "full").touch()
    text = """
print("only where it fits", flush=True)
"""
    log = bench.store / "rank-0.log"
    log.touch()
    env = os.environ | {"STX_FAULT_TICKETS": str(bench.tickets), "STX_FAULT_STORE": str(bench.store)}
    with log.open("ab") as stream:
        argv = [sys.executable, "-c", text]
        done = subprocess.run(argv, env=env | {"PYTHONPATH": str(FAULTS)}, stdout=stream, stderr=subprocess.PIPE)
    assert done.returncode != 0 and b"No space left" in done.stderr
    assert log.read_bytes() == b""
