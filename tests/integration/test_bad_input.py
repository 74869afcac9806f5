"""Damaged files, stores and disks, through the real command line: one clear error, exit code 2, no traceback.

What a person can write wrongly has a page, docs/errors.md, and its test, tests/docs/test_errors.py.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MICRO = (Path(__file__).parent / "micro.yaml").read_text()
ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

COMMAND = "name: cmd\nstages:\n  one: {kind: command, argv: [sh, -c, 'echo 1 > $STX_OUTPUT/a'], version: a}\n"


def refused(stx, *arguments: str) -> str:
    """The words of a submit that is refused with exit code 2 and leaves nothing at all."""
    result = stx.run("submit", *arguments, expect=2)
    assert "Traceback" not in result.stderr and "unexpected" not in result.stderr, result.stderr
    assert result.stdout == ""
    assert not stx.store.exists()
    return result.stderr.partition("error: ")[2]


def test_a_misspelt_option_a_missing_file_a_directory_and_bytes_are_refused(stx):
    (stx.folder / "micro.yaml").write_text(MICRO.replace("steps: 40", "stpes: 40", 1))
    assert refused(stx, str(stx.folder / "micro.yaml")).startswith(f"{stx.folder}/micro.yaml:10: defaults.train.stpes")
    assert "no such file: " in (words := refused(stx, str(stx.folder / "mcro.yaml"))) and "micro.yaml" in words
    assert "is a directory" in (words := refused(stx, str(stx.folder))) and "there are: " in words
    (stx.folder / "e.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8 text" in refused(stx, str(stx.folder / "e.yaml"))


@pytest.mark.parametrize(
    ("pattern", "content"),
    [
        ("store.json", '{"id"'),
        ("stages/*/attempts/001.intent.json", "{}"),
        ("stages/*/attempts/001/outcome-0.json", '{"rank'),
        ("stages/*/attempts/001/outcome-0.json", "{}"),
        ("stages/*/artifact.json", "{}"),
        ("experiments/cmd/graph.json", "{}"),
        ("experiments/cmd/events-1.jsonl", '{"at": 1, "event": {}}\n'),
        ("experiments/cmd/lease/1", "{}"),
        ("experiments/cmd/lease/1", '{"process": "x", "host": "h", "lease_s": 1, "released": false}'),
    ],
)
def test_a_damaged_record_of_the_store_is_named(stx, failed, pattern, content):
    shutil.copytree(failed.folder, stx.folder, dirs_exist_ok=True)
    damaged = sorted(stx.store.glob(pattern))
    for path in damaged:
        path.write_text(content)
    result = stx.run("submit", str(stx.folder / "e.yaml"), expect=2)
    assert any(f"error: {path}" in result.stderr for path in damaged), result.stderr
    assert "the disk damaged it" in result.stderr


@pytest.fixture(scope="module")
def failed(new_stx):
    """A store with a failed stage, whose records are all read when it is submitted again, and a finished one."""
    runner = new_stx("failed")
    failing = COMMAND.replace("echo 1 >", "exit 3; echo 1 >") + "  two: {kind: command, argv: ['true'], version: a}\n"
    (runner.folder / "e.yaml").write_text(failing)
    runner.run("submit", str(runner.folder / "e.yaml"), expect=3)
    return runner


def in_namespace(stx, script: str) -> subprocess.CompletedProcess[str]:
    """A shell script as root of a mount namespace of its own; a visible skip where that is not allowed."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let a user mount a file system in a namespace")
    run = f'stx() {{ {sys.executable} -m stx.cli "$@"; }}\n'
    return subprocess.run(
        ["unshare", "-rm", "bash", "-c", run + script],
        cwd=stx.folder,
        env=stx.environment({"PYTHONPATH": str(ROOT), "STX_STORE": ""}),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_store_without_write_permission_is_refused_and_stays_as_it_was(stx):
    (stx.folder / "e.yaml").write_text(COMMAND + "  two: {kind: command, argv: ['false'], version: a}\n")
    (stx.folder / "ro").mkdir()
    stx.run("submit", str(stx.folder / "e.yaml"), "--store", str(stx.folder / "ro" / "old"), expect=3)
    before = sorted((path, path.stat().st_mtime_ns) for path in (stx.folder / "ro").rglob("*"))
    done = in_namespace(
        stx,
        """
        mount --bind ro ro && mount -o remount,ro,bind ro || exit 9
        stx submit e.yaml --store ro/new; echo "exit $?" >&2
        stx submit e.yaml --store ro/old --set stages.one.seed=1 --update; echo "exit $?" >&2
        stx cancel cmd --store ro/old; echo "exit $?" >&2
        stx retry cmd --store ro/old; echo "exit $?" >&2
        stx report cmd --store ro/old; echo "exit $?" >&2
        stx status cmd --store ro/old; echo "exit $?" >&2
        """,
    )
    assert [line for line in done.stderr.splitlines() if line.startswith("exit ")] == ["exit 2"] * 5 + ["exit 0"]
    assert done.stderr.count("cannot be written: Read-only file system") == 5, done.stderr
    assert done.stderr.count("--store") >= 5
    assert "Traceback" not in done.stderr and "unexpected" not in done.stderr
    assert sorted((path, path.stat().st_mtime_ns) for path in (stx.folder / "ro").rglob("*")) == before


def test_a_store_that_turns_read_only_ends_the_coordinator_by_name(stx):
    slow = COMMAND.replace("echo 1 >", "for i in $(seq 300); do test -e GO && break; sleep 0.1; done; echo 1 >")
    (stx.folder / "e.yaml").write_text(slow.replace("GO", str(stx.folder / "go")))
    (stx.folder / "rw").mkdir()
    done = in_namespace(
        stx,
        """
        stx submit e.yaml --store rw/s 2> submit.log & submit=$!
        for _ in $(seq 300); do ls rw/s/stages/*/attempts/001/alive-0 && break; sleep 0.1; done
        # The writable mount has writers, so it cannot be remounted: a read-only view of a copy covers it.
        until cp -a rw copy; do rm -rf copy; done
        mount --bind copy copy && mount -o remount,ro,bind copy && mount --bind copy rw || exit 9
        wait $submit; echo "exit $?" >&2
        umount rw && touch go
        stx submit e.yaml --store rw/s; echo "exit $?" >&2
        """,
    )
    log = (stx.folder / "submit.log").read_text()
    assert [line for line in done.stderr.splitlines() if line.startswith("exit ")] == ["exit 2", "exit 0"], (
        done.stderr + log
    )
    assert "the store cannot be used any more: Read-only file system" in log
    assert "jobs run on" in log and "Traceback" not in log and "unexpected" not in log


def test_a_disk_that_is_full_at_submit_is_said_and_nothing_is_queued(stx):
    (stx.folder / "e.yaml").write_text(COMMAND)
    (stx.folder / "full").mkdir()
    done = in_namespace(
        stx,
        """
        mount -t tmpfs -o size=128k none full || exit 9
        stx submit e.yaml --store full/s; echo "exit $?" >&2
        find full/s/stages full/s/experiments full/s/code -type f
        """,
    )
    assert "exit 2" in done.stderr and "the disk is full\n  free some space" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "unexpected" not in done.stderr
    assert done.stdout == ""


FULL = """
name: full
stages:
  small: {kind: command, argv: [sh, -c, 'echo 1 > $STX_OUTPUT/a'], version: a}
  published: {kind: command, argv: [sh, -c, 'head -c 2500000 /dev/zero > $STX_OUTPUT/b'], inputs: {s: small}}
  program: {kind: command, argv: [sh, -c, 'head -c 5000000 /dev/zero > $STX_OUTPUT/c'], inputs: {s: small}}
"""


def test_a_disk_that_fills_up_delays_its_stages_and_they_go_on_when_space_is_back(stx):
    (stx.folder / "e.yaml").write_text(FULL)
    (stx.folder / "c.yaml").write_text(  # space comes back while both are delayed, not while one is running
        "poll_s: 0.2\nbackoff_s: [8]\nretries: {no_space: 100}\nlimits: {running: 1}\n"
    )
    (stx.folder / "full").mkdir()
    done = in_namespace(
        stx,
        """
        mount -t tmpfs -o size=20m none full || exit 9
        head -c 16500000 /dev/zero > full/filler
        stx submit e.yaml --store full/s --cluster ./c.yaml 2> submit.log & submit=$!
        for _ in $(seq 200); do
            grep -q 'published DELAYED' submit.log && grep -q 'program DELAYED' submit.log && break
            sleep 0.1
        done
        stx status full --store full/s --json > status.json
        rm full/filler
        wait $submit; echo "exit $?"
        find full/s -path '*attempts/*/output' -o -name '*.tmp' -o -name 'output-finished'
        cat full/s/stages/*/artifact.json | grep -c digest
        """,
    )
    log = (stx.folder / "submit.log").read_text()
    assert done.stdout.split("\n")[-3:] == ["exit 0", "3", ""], f"{done.stdout}\n{done.stderr}\n{log}"
    assert "Traceback" not in log and "unexpected" not in log
    assert "NO_SPACE" in log and "No space left on device" in log
    (look,) = json.loads((stx.folder / "status.json").read_text())["experiments"]
    assert {line["name"] for line in look["stages"] if line["state"] == "DONE"} == {"small"}
