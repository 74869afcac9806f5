"""Several real users and one store: what a group shares, what stays one user's, and what a stranger is refused."""

import json
import os
import signal
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs import files
from tests.integration.people import Person, common_python

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of several users"),
]
GROUP, ALICE, BOB, EVE = 42420, 42421, 42422, 42423
STAGE = "  one: {{kind: command, argv: [sh, -c, '{} echo 1 > $STX_OUTPUT/a'], version: a}}\n"
QUICK = STAGE.format("")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may enter, unlike pytest's own; every process that names it is ended at last."""
    with tempfile.TemporaryDirectory(prefix="stx-users-") as name:
        Path(name).chmod(0o755)
        yield Path(name)
        for pid in processes(name):
            os.kill(pid, signal.SIGKILL)


def processes(name: str) -> list[int]:
    """Those with a text on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                found += [int(entry.name)] if name.encode() in (entry / "cmdline").read_bytes() else []
            except OSError:
                continue
    return found


@pytest.fixture
def people(folder: Path) -> dict[str, Person]:
    """Alice and Bob are in the group of the store, Eve is not. Alice lets nobody read her files, elsewhere."""
    python = common_python(folder, reader=ALICE)
    env = {"STX_STORE": str(folder / "store")}
    made = {}
    for name, number in {"alice": ALICE, "bob": BOB, "eve": EVE}.items():
        own = folder / name
        own.mkdir()
        os.chown(own, number, number)
        groups = () if name == "eve" else (GROUP,)
        made[name] = Person(number, own, python, groups, umask=0o077 if name == "alice" else 0o022, env=env)
    return made


@pytest.fixture
def store(folder: Path) -> Path:
    """A store that Alice made for the group, as docs/cluster.md says."""
    root = folder / "store"
    root.mkdir()
    os.chown(root, ALICE, GROUP)
    root.chmod(0o3770)
    return root


def write(folder: Path, name: str, stages: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(f"name: {name}\nstages:\n{stages}")
    return path


def until(true: Callable[[], object], what: str) -> None:
    limit = time.monotonic() + 60
    while not true():
        assert time.monotonic() < limit, f"not in time: {what}"
        time.sleep(0.2)


def test_a_group_shares_stages_and_everybody_drives_his_own_experiments(people, store, folder):
    alice, bob, eve = people["alice"], people["bob"], people["eve"]
    a, b = write(folder, "a", QUICK), write(folder, "b", QUICK)
    alice.stx("submit", a)
    assert "by experiment a" in bob.stx("submit", b)
    for path in [store, *store.rglob("*")]:
        status, private = path.lstat(), "code" in path.relative_to(store).parts[:1] and path != store / "code"
        assert status.st_gid == GROUP
        assert status.st_mode & stat.S_IRGRP
        assert bool(status.st_mode & stat.S_IWGRP) is not private, f"{path} {status.st_mode:o}"
        assert files.is_shared(status.st_mode) or private or not path.is_dir()
    copies = sorted((store / "code").iterdir())
    assert [copy.stat().st_uid for copy in copies] == [ALICE, BOB]
    assert copies[1].name == f"{copies[0].name}-{BOB}"

    for words in (("submit", a), ("cancel", "a"), ("gc", "--forget", "a"), ("gc", "--others")):
        assert f"user {ALICE}'s" in bob.stx(*words, expect=2)
    for words in (("logs", "a/one"), ("cancel", "*")):
        assert "Permission" not in bob.stx(*words)
    assert "Permission denied" in eve.stx("submit", b, expect=2)


def test_a_live_attempt_of_another_member_is_waited_for_and_one_that_is_gone_is_replaced(people, store, folder):
    alice, bob = people["alice"], people["bob"]
    go = folder / "go"
    waits = STAGE.format(f"echo $$ > $STX_ATTEMPT/pid; until test -e {go}; do sleep 0.1; done;")
    alice.stx("submit", write(folder, "a", waits), "--detach")
    until(lambda: list(store.glob("stages/*/attempts/001/pid")), "alice's program runs")
    (attempts,) = store.glob("stages/*/attempts")
    driver = bob.begin("submit", write(folder, "b", waits), "--foreground")

    def held() -> bool:
        journal = store / "experiments" / "b" / "events-1.jsonl"
        return journal.exists() and f"held by user {ALICE}, experiment a, on " in bob.stx("status", "b", "--all")

    until(held, "bob waits for alice")
    bob.stx("cancel", "b")
    driver.communicate(timeout=60)
    assert driver.returncode == 3
    supervisor = json.loads((attempts / "001" / "started.json").read_text())["pid"]
    assert Path(f"/proc/{supervisor}").exists()
    assert not (attempts / "001" / "stop.json").exists()
    assert not (attempts / "001" / "verdict.json").exists()

    bob.stx("retry", "b")
    driver = bob.begin("submit", folder / "b.yaml", "--foreground")
    until(held, "bob waits for alice again")
    for pid in processes(str(folder)):
        if os.stat(f"/proc/{pid}").st_uid == ALICE:
            os.kill(pid, signal.SIGKILL)
    os.kill(int((attempts / "001" / "pid").read_text()), signal.SIGKILL)
    until((attempts / "002.intent.json").exists, "bob makes an attempt of his own")
    go.touch()
    said = driver.communicate(timeout=60)
    assert driver.returncode == 0, said
    assert json.loads((attempts / "001" / "verdict.json").read_text())["cause"] == "LOST"
    assert (attempts / "002").stat().st_uid == BOB
    assert "1 cached" in alice.stx("submit", folder / "a.yaml")


@pytest.mark.full
def test_a_stage_that_another_member_made_stays_until_the_owner_of_the_store_says_so(people, store, folder):
    alice, bob = people["alice"], people["bob"]
    bob.stx("submit", write(folder, "b", QUICK))
    bob.stx("submit", write(folder, "b", STAGE.format("true;")), "--update")
    for root, _, names in os.walk(store):
        for name in names:
            os.utime(Path(root, name))
    said = alice.stx("gc", "--yes")
    assert f"user {BOB}'s: no experiment wants it" in said
    assert "1 thing that others made" in said
    assert len(list((store / "stages").iterdir())) == 2
    assert "removed 1 thing" in alice.stx("gc", "--yes", "--others")
    assert len(list((store / "stages").iterdir())) == 1


@pytest.mark.full
def test_one_user_who_is_not_root_has_all_of_stx_in_a_folder_of_his_own(people, folder):
    eve = people["eve"]
    own = ("--store", eve.folder / "mine")
    eve.stx("submit", write(folder, "e", STAGE.format("sleep 300;")), "--detach", *own)
    assert "one" in eve.stx("status", "e", "--all", *own)
    eve.stx("cancel", "e", *own)
    until(lambda: "CANCELLED" in eve.stx("status", "e", "--all", *own), "the stage is cancelled")
    eve.stx("submit", write(folder, "f", QUICK), *own)
    assert "removed" in eve.stx("gc", "--forget", "e", "--yes", *own)
    assert {path.lstat().st_uid for path in (eve.folder / "mine").rglob("*")} == {EVE}
    assert not [path for path in (eve.folder / "mine").rglob("*") if path.lstat().st_mode & stat.S_IWGRP]
