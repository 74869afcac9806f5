"""What a coordinator has to tell: names that stay the same for the same happening."""

import errno

from jobs import files
from jobs.spec import Cause, Result
from stx.coordinator.notices import Teller
from tests.coordinator.simulated import end_all


def fail_all(world):
    end_all(world, Result.FAILED, cause=Cause.USER, message="ValueError: no")


def events(notices):
    return [notice.record["event"] for notice in notices]


def test_a_failed_stage_is_told_with_its_cause_and_log_and_again_after_a_retry_that_fails(world, sim):
    coordinator = world.start(sim.single("a"))
    teller = Teller(world.store)
    world.rounds(1)
    assert teller.look(coordinator.state) == []
    fail_all(world)
    world.rounds(1)
    failed, finished = teller.look(coordinator.state)
    assert failed.record | {"key": ""} == {
        "schema": 1, "id": failed.name, "event": "stage_failed", "experiment": "a", "store": str(world.store.root),
        "stage": "only", "kind": "images", "key": "", "attempt": 1, "cause": "USER", "why": "USER: ValueError: no",
        "log": str(world.launcher.jobs[0].folder.log(0)),
    }  # fmt: skip
    assert (finished.record["event"], finished.record["exit_code"]) == ("finished", 3)
    assert finished.record["stages"] == {"FAILED": 1}
    world.kill("a")
    mended = world.start(sim.single("a"), code="code2")
    world.rounds(1)
    fail_all(world)
    world.rounds(1)
    assert teller.look(mended.state)[0].name != failed.name


def test_a_coordinator_that_starts_anew_gives_the_same_names(world, sim):
    coordinator = world.start(sim.small_graph("a"))
    world.rounds(1)
    fail_all(world)
    world.rounds(1)
    before = [notice.name for notice in Teller(world.store).look(coordinator.state)]
    world.kill("a")
    again = world.start(sim.small_graph("a"))
    world.rounds(3)
    assert [notice.name for notice in Teller(world.store).look(again.state)] == before
    assert len(before) == 2


def test_the_same_state_is_looked_at_once(world, sim):
    coordinator = world.start(sim.single("a"))
    world.finish()
    teller = Teller(world.store)
    assert events(teller.look(coordinator.state)) == ["finished"]
    assert teller.look(coordinator.state) == []


def test_a_full_disk_is_told_when_it_begins_and_when_it_is_over(world, sim, monkeypatch):
    coordinator = world.start(sim.small_graph("a"))
    teller = Teller(world.store)
    world.rounds(1)

    def full(descriptor, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    told = []
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_all", full)
        for _ in range(3):
            world.rounds(1, seconds=10.0)
            told += teller.look(coordinator.state)
    world.rounds(2, seconds=10.0)
    told += teller.look(coordinator.state)
    assert events(told) == ["paused", "resumed"]
    assert "the disk is full" in told[0].record["why"]
    assert len({notice.name for notice in told}) == 2
