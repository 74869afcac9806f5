"""Programs of on_event, really started: told once, bounded in time, never in the coordinator's way."""

import json
import os
import signal
import time

import pytest

from stx.coordinator.messenger import Messenger, messenger


@pytest.fixture
def failed(world, sim):
    """A coordinator whose only stage has failed: two notices, the failure and the end."""
    world.launcher.refuse = "Invalid account"
    coordinator = world.start(sim.single("a"), cluster=world.cluster(retries={"setup": 0}))
    world.rounds(3)
    assert coordinator.state.finished
    return coordinator.state


def program(world, script):
    """A messenger whose program is a shell script; it runs in the folder of the world."""
    return Messenger(
        ["sh", "-c", f"cd {world.folder}; {script}"],
        store=world.store,
        experiment=world.store.experiment("a"),
        limit_s=5.0,
    )


def until(true, *, seconds=10.0):
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.02)


def test_each_event_is_told_once_as_json_also_when_a_coordinator_starts_anew(world, failed):
    for _ in range(2):
        mail = program(world, "cat >> told")
        for _ in range(3):
            mail.tell(failed)
        mail.finish()
    lines = [json.loads(line) for line in (world.folder / "told").read_text().splitlines()]
    assert sorted(line["event"] for line in lines) == ["finished", "stage_failed"]
    assert next(line for line in lines if line["event"] == "stage_failed")["cause"] == "SETUP"


def test_what_a_killed_coordinator_had_not_told_is_told_by_the_next_under_the_same_id(world, failed):
    first = program(world, "cat > first.$$; sleep 60")
    first.tell(failed)
    until(lambda: len([path for path in world.folder.glob("first.*") if path.read_text()]) == 2)
    for one in first._running:  # the coordinator is gone, and so, some day, are its programs
        os.killpg(one.child.pid, signal.SIGKILL)
        one.child.wait()
    second = program(world, "cat > second.$$")
    second.tell(failed)
    second.finish()
    ids = [
        sorted(json.loads(path.read_text())["id"] for path in world.folder.glob(f"{name}.*"))
        for name in ("first", "second")
    ]
    assert ids[0] == ids[1] and len(ids[0]) == 2


def test_a_program_that_hangs_is_ended_with_all_its_children_and_holds_nothing_up(world, failed):
    mail = program(world, "sleep 61.5 & echo $! >> children; wait")
    mail._limit_s = 0.5
    began = time.monotonic()
    mail.tell(failed)
    assert time.monotonic() - began < 0.4, "telling does not wait"
    mail.finish()
    children = (world.folder / "children").read_text().split()
    assert len(children) == 2
    until(lambda: not any(_lives(int(pid)) for pid in children))
    assert "took longer than 0.5 s, ended" in world.store.experiment("a").event_log.read_text()


def _lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("script", ["echo oh no; exit 3", "/no/such/program"])
def test_a_program_that_fails_is_logged_and_not_run_again(world, failed, script):
    for _ in range(2):
        mail = program(world, f"echo run >> runs; {script}")
        mail.tell(failed)
        mail.finish()
    assert (world.folder / "runs").read_text().count("run") == 2, "one for each event"
    assert "the program ended with code" in world.store.experiment("a").event_log.read_text()


def test_a_program_that_cannot_be_started_ends_nothing(world, failed):
    mail = Messenger(["/no/such"], store=world.store, experiment=world.store.experiment("a"), limit_s=5.0)
    mail.tell(failed)
    mail.finish()
    assert "/no/such cannot be started" in world.store.experiment("a").event_log.read_text()


def test_an_error_of_the_coordinator_leaves_the_rest_to_the_next_one(world, failed):
    experiment = world.store.experiment("a")
    argv = ["sh", "-c", "sleep 60"]
    with pytest.raises(KeyError), messenger(argv, store=world.store, experiment=experiment) as mail:
        mail.tell(failed)
        raise KeyError
    assert not mail._running
    assert not list((experiment.path / "notices").glob("*.json"))


def test_without_a_program_nobody_is_told(world):
    with messenger(None, store=world.store, experiment=world.store.experiment("a")) as mail:
        assert mail is None
