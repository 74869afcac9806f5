"""Two experiments on one store, and attempts whose coordinator is gone: sharing, adoption, taking over."""

import json

import pytest

from jobs.spec import Cause, JobState, Result
from stx import sharing
from stx.coordinator.inbox import Command, put
from stx.coordinator.state import Status
from stx.errors import ConfigError, LeaseHeld
from tests.coordinator.simulated import end_all, only


def test_what_is_finished_starts_no_job_in_another_experiment(world, sim):
    world.start(sim.small_graph("a"))
    world.finish()
    jobs = len(world.launcher.jobs)
    other = world.start(sim.small_graph("b"))
    world.rounds(2)
    assert other.state.finished
    assert len(world.launcher.jobs) == jobs


def test_a_submit_that_timed_out_after_it_was_accepted_is_adopted(world, sim):
    world.launcher.timeouts = 1
    world.start(sim.single("a"))
    world.rounds(3)
    assert len(world.launcher.jobs) == 1
    world.finish()
    assert len(world.launcher.jobs) == 1


def test_two_experiments_share_a_stage_and_train_it_once(world, sim):
    first, second = world.start(sim.small_graph("a", wants=(2,))), world.start(sim.small_graph("b"))
    world.rounds(1)
    assert len(world.launcher.jobs) == 1
    assert {only(first).status, only(second).status} == {Status.RUNNING, Status.ELSEWHERE}
    assert "held by experiment a" in only(second).why
    world.finish()
    assert first.state.exit_code == second.state.exit_code == 0
    trained = [job for job in world.launcher.jobs if "train-" in str(job.folder.path)]
    assert len(trained) == 1, "the milestones of both were wanted, one attempt made both"


def test_the_next_attempt_of_a_shared_stage_goes_to_whoever_wants_it(world, sim):
    world.start(sim.single("a"))
    second = world.start(sim.single("b"))
    world.rounds(1)
    world.kill("a")
    end_all(world, Result.YIELDED)
    world.rounds(1)
    assert only(second).status is Status.RUNNING
    assert only(second).facts.live.experiment == "b"


def test_a_lost_attempt_of_a_dead_experiment_is_judged_by_the_other_one(world, sim):
    world.start(sim.single("a"))
    second = world.start(sim.single("b"))
    world.rounds(1)
    world.kill("a")
    (job,) = world.launcher.live()
    world.launcher.start(job)
    job.state = JobState.ENDED
    world.rounds(3)
    assert only(second).facts.live.experiment == "b"
    assert only(second).facts.last == 2


def test_an_attempt_of_a_launcher_out_of_reach_is_never_judged_until_a_person_says_so(world, sim):
    far = sim.Launcher("far")
    world.start(sim.single("a"), launcher=far)
    world.rounds(1)
    world.kill("a")
    second = world.start(sim.single("b"))
    world.rounds(5, seconds=10_000)
    assert only(second).status is Status.ELSEWHERE
    assert "out of reach" in only(second).why
    put(world.store.experiment("b"), Command("retry", (next(iter(second.state.plan.index)),), take_over=True))
    world.rounds(2)
    assert only(second).facts.live.experiment == "b"


def test_an_own_attempt_on_a_cluster_out_of_reach_takes_no_place_and_a_person_may_take_it_over(world, sim):
    world.start(sim.single("a"), launcher=sim.Launcher("far"))
    world.rounds(1)
    world.kill("a")
    again = world.start(sim.single("a"))
    world.rounds(3)
    assert only(again).status is Status.ELSEWHERE
    assert "take-over" in only(again).why
    assert not any(again.state.held())
    put(world.store.experiment("a"), Command("retry", tuple(again.state.plan.index), take_over=True))
    world.finish()
    assert only(again).status is Status.DONE


def test_a_claim_without_a_handle_is_looked_up_twice_and_submitted_again(world, sim):
    first = world.start(sim.single("a"))
    world.rounds(1)
    (vertex,) = first.state.plan.vertices
    attempt = world.store.stage("images", vertex.key).attempt(1)
    attempt.handle.unlink()
    world.launcher.jobs.clear()
    world.kill("a")
    second = world.start(sim.single("a"))
    world.rounds(2)
    assert not world.launcher.jobs
    world.rounds(2)
    assert len(world.launcher.jobs) == 1
    assert only(second).facts.last == 1
    world.finish()


def test_a_claim_whose_job_exists_is_adopted_and_not_submitted_again(world, sim):
    first = world.start(sim.single("a"))
    world.rounds(1)
    (vertex,) = first.state.plan.vertices
    world.store.stage("images", vertex.key).attempt(1).handle.unlink()
    world.kill("a")
    world.start(sim.single("a"))
    world.finish()
    assert len(world.launcher.jobs) == 1


def test_a_claim_of_an_experiment_that_nobody_drives_is_brought_on_its_way_by_another(world, sim):
    first, other = world.start(sim.single("a")), world.start(sim.single("b"))
    world.rounds(1)
    (vertex,) = first.state.plan.vertices
    world.store.stage("images", vertex.key).attempt(1).handle.unlink()
    world.launcher.jobs.clear()
    world.kill("a")
    world.rounds(5)
    assert len(world.launcher.jobs) == 1
    world.finish()
    assert only(other).facts.last == 1


def test_a_holder_that_lost_its_lease_stops_writing(world, sim):
    old = world.start(sim.single("a"))
    world.dead.add(world.processes["a"])
    world.start(sim.single("a"))
    with pytest.raises(LeaseHeld):
        old.round()


def test_nobody_takes_over_an_attempt_that_can_be_seen_to_run(world, sim):
    world.start(sim.single("a"))
    second = world.start(sim.single("b"))
    world.rounds(2)
    (job,) = world.launcher.live()
    world.launcher.start(job)
    put(world.store.experiment("b"), Command("retry", tuple(second.state.plan.index), take_over=True))
    world.rounds(3)
    assert not job.folder.verdict.exists()
    assert len(world.launcher.jobs) == 1
    world.finish()


def test_a_job_that_the_scheduler_shows_only_after_it_was_given_up_does_not_run(world, sim, monkeypatch):
    """sbatch timed out although it had accepted, and squeue did not know the job for a while."""
    find = world.launcher.find
    monkeypatch.setattr(world.launcher, "find", lambda tag, folder: None)
    world.launcher.timeouts = 1
    coordinator = world.start(sim.single("a"))
    world.rounds(1)
    (late,) = world.launcher.jobs
    assert only(coordinator).facts.ended.cause == "SETUP"
    monkeypatch.setattr(world.launcher, "find", find)
    world.rounds(2, seconds=100.0)
    world.launcher.start(late)
    assert late.state is JobState.ENDED
    world.finish()
    assert only(coordinator).facts.last == 2


def test_a_job_that_began_while_it_was_being_given_up_is_kept(world, sim, monkeypatch):
    find = world.launcher.find

    def not_yet(tag, folder):
        world.launcher.start(world.launcher.jobs[0])

    monkeypatch.setattr(world.launcher, "find", not_yet)
    world.launcher.timeouts = 1
    coordinator = world.start(sim.single("a"))
    world.rounds(1)
    monkeypatch.setattr(world.launcher, "find", find)
    assert only(coordinator).facts.live.job_id == "job0"
    world.finish()
    assert only(coordinator).facts.last == 1


@pytest.fixture
def alices(world, sim, monkeypatch):
    """An experiment of Alice's with a live attempt, and ours that wants the same stage."""
    with monkeypatch.context() as patch:
        patch.setattr(sharing, "me", lambda: {"uid": 4242, "name": "alice"})
        patch.setattr(sharing, "other", lambda record: "")
        world.start(sim.single("a"))
        world.rounds(1)
    return world.start(sim.single("b"))


def test_the_live_attempt_of_another_user_is_shown_with_his_name_and_never_ended(world, alices):
    world.coordinators.pop("a")
    world.rounds(2)
    assert only(alices).status is Status.ELSEWHERE
    assert only(alices).why.startswith("held by alice, experiment a, on ")
    put(world.store.experiment("b"), Command("cancel", tuple(alices.state.plan.index)))
    world.rounds(2)
    alices.interrupt()
    world.rounds(2, seconds=1000)
    (job,) = world.launcher.live()
    assert not job.folder.stop.exists()
    assert not job.folder.verdict.exists()
    assert only(alices).status is Status.CANCELLED


def test_an_attempt_of_another_user_that_is_gone_is_judged_and_replaced_by_ours(world, alices):
    world.coordinators.pop("a")
    (job,) = world.launcher.live()
    world.launcher.start(job)
    job.state = JobState.ENDED
    world.rounds(3)
    assert json.loads(job.folder.verdict.read_bytes())["cause"] == Cause.LOST
    assert (only(alices).status, only(alices).facts.last) == (Status.RUNNING, 2)
    assert json.loads(world.launcher.live()[0].folder.intent.read_bytes())["user"] == sharing.me()


def test_a_claim_of_another_user_without_a_job_is_not_run_as_us_until_a_person_gives_it_up(world, alices):
    world.kill("a")
    (job,) = world.launcher.jobs
    job.folder.handle.unlink()
    world.launcher.jobs.clear()
    world.rounds(5, seconds=100)
    assert world.launcher.jobs == []
    assert only(alices).status is Status.ELSEWHERE
    assert "perhaps never started; if it is surely gone: stx retry --take-over" in only(alices).why
    put(world.store.experiment("b"), Command("retry", tuple(alices.state.plan.index), take_over=True))
    world.rounds(2)
    assert only(alices).facts.last == 2


def test_an_experiment_is_the_users_who_submitted_it_first(world, sim, monkeypatch):
    world.start(sim.single("a"))
    monkeypatch.setattr(sharing.os, "geteuid", lambda: 4242)
    with pytest.raises(ConfigError, match=r"this experiment is .*'s"):
        world.start(sim.single("a"))
