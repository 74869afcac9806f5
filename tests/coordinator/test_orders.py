"""What people tell a running coordinator: Ctrl-C, cancel, retry; each counts once, and outlives a kill."""

import pytest

from jobs.spec import Cause, Result
from stx import records
from stx.coordinator import journal
from stx.coordinator.inbox import Command, put
from stx.coordinator.state import Status
from stx.coordinator.transitions import replay
from stx.errors import LeaseHeld
from tests.coordinator.simulated import end_all, only, start_all


def test_the_first_ctrl_c_stops_all_and_waits_for_the_saves(world, sim):
    coordinator = world.start(sim.single("a"))
    world.rounds(1)
    start_all(world)
    coordinator.interrupt()
    world.rounds(1)
    (job,) = world.launcher.live()
    assert job.folder.stop.exists()
    assert any(coordinator.state.held())
    world.launcher.end(job, Result.YIELDED)
    world.rounds(2)
    assert not any(coordinator.state.held())
    assert len(world.launcher.jobs) == 1


def test_an_attempt_that_does_not_leave_is_cancelled_after_its_lead(world, sim):
    coordinator = world.start(sim.single("a"))
    world.rounds(1)
    start_all(world)
    coordinator.interrupt()
    world.rounds(1, seconds=40.0)
    assert world.launcher.live()
    world.rounds(1)
    assert not world.launcher.live()
    world.rounds(2)
    assert only(coordinator).facts.ended.result == "YIELDED", "it was asked to leave: that is nobody's failure"


def test_cancel_stops_the_job_and_retry_brings_the_stage_back(world, sim):
    coordinator = world.start(sim.single("a"))
    world.rounds(1)
    start_all(world)
    (key,) = coordinator.state.plan.index
    mark = world.store.stage("images", key).mark("a")
    assert mark.exists()
    put(world.store.experiment("a"), Command("cancel", (key,)))
    world.rounds(1)
    assert not mark.exists()
    end_all(world, Result.YIELDED)
    world.rounds(1)
    assert only(coordinator).status is Status.CANCELLED
    assert coordinator.state.exit_code == 3
    world.kill("a")
    again = world.start(sim.single("a"))
    world.rounds(1)
    assert only(again).status is Status.CANCELLED, "a person's word outlives the coordinator"
    put(world.store.experiment("a"), Command("retry", (key,)))
    world.finish()
    assert only(again).status is Status.DONE


def test_cancel_leaves_a_job_alone_that_another_experiment_wants(world, sim):
    first, second = world.start(sim.single("a")), world.start(sim.single("b"))
    world.rounds(2)
    (key,) = first.state.plan.index
    put(world.store.experiment("a"), Command("cancel", (key,)))
    world.rounds(1)
    (job,) = world.launcher.live()
    assert not job.folder.stop.exists()
    assert only(first).status is Status.CANCELLED
    assert first.state.finished
    world.finish()
    assert only(second).status is Status.DONE


@pytest.mark.parametrize("verb", ["retry", "cancel"])
def test_a_command_is_not_lost_wherever_its_coordinator_is_killed(new_world, sim, verb):
    calls, survived = 0, False
    while not survived:
        world = new_world()
        cluster = world.cluster(retries={"oom": 0})
        coordinator = world.start(sim.single("a"), cluster=cluster)
        world.rounds(1)
        (key,) = coordinator.state.plan.index
        if verb == "retry":
            end_all(world, Result.FAILED, cause=Cause.OOM)
            world.rounds(1)
        put(world.store.experiment("a"), Command(verb, (key,)))
        survived = world.within(calls, coordinator.round)
        world.kill("a")
        again = world.start(sim.single("a"), cluster=cluster)
        world.rounds(2)
        if verb == "retry":
            assert only(again).status is Status.RUNNING, f"killed after {calls} calls"
        else:
            assert only(again).cancelled
            assert not world.store.stage("images", key).mark("a").exists(), f"killed after {calls} calls"
        calls += 1


def test_a_command_counts_once_even_if_its_file_is_met_again(world, sim):
    coordinator = world.start(sim.single("a"))
    world.rounds(1)
    (key,) = coordinator.state.plan.index
    put(world.store.experiment("a"), Command("cancel", (key,)))
    (letter,) = world.store.experiment("a").inbox.iterdir()
    data = letter.read_bytes()
    world.rounds(1)
    put(world.store.experiment("a"), Command("retry", (key,)))
    world.rounds(1)
    letter.write_bytes(data)
    world.rounds(1)
    assert not only(coordinator).cancelled
    assert not letter.exists()


def test_a_letter_that_another_coordinator_read_first_is_nobody_elses(world, sim, monkeypatch):
    coordinator = world.start(sim.single("a"))
    directory = world.store.experiment("a")
    put(directory, Command("cancel", tuple(coordinator.state.plan.index)))
    find = records.find

    def gone(path, **options):
        if path.parent == directory.inbox:
            path.unlink()
        return find(path, **options)

    monkeypatch.setattr(records, "find", gone)
    world.rounds(1)
    assert not only(coordinator).cancelled


def test_a_full_disk_loses_no_command_and_ends_no_coordinator(world, sim):
    coordinator = world.start(sim.single("a"))
    world.rounds(1)
    put(world.store.experiment("a"), Command("cancel", tuple(coordinator.state.plan.index)))
    world.system.full = True
    world.rounds(3, seconds=10.0)
    world.system.full = False
    world.rounds(3, seconds=10.0)
    assert only(coordinator).cancelled
    told = journal.events(world.store.experiment("a"))
    assert replay(sim.single("a"), told) == coordinator.state


def test_a_coordinator_that_lost_its_lease_leaves_the_letter_to_the_next_one(world, sim):
    world.start(sim.single("a"))
    sleeper = world.overtake("a")
    with pytest.raises(LeaseHeld):
        sleeper.order(Command("leave"), name="letter")
