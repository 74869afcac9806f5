"""The coordinator on real files, with a simulated scheduler: whole runs, limits, polls, full disks, edited graphs."""

import errno

import pytest

from jobs import files
from jobs.spec import JobState, Result
from stx import records
from stx.coordinator import journal
from stx.coordinator.attempts import Attempts
from stx.coordinator.events import Surveyed
from stx.coordinator.loop import noted
from stx.coordinator.state import Status
from stx.coordinator.status import Left, Observer
from stx.errors import BackendError, LeaseHeld, StoreError
from stx.paths import StageDir
from tests.coordinator.simulated import only, start_all


def test_a_whole_experiment_runs_to_its_end(world, sim):
    coordinator = world.start(sim.small_graph("a"))
    world.finish()
    assert coordinator.state.exit_code == 0
    assert set(sim.statuses(coordinator).values()) == {"DONE"}
    world.check()


def test_samples_start_before_the_run_is_done(world, sim):
    coordinator = world.start(sim.small_graph("a"))
    world.rounds(1)
    world.run_jobs()
    world.rounds(1)
    (train,) = world.launcher.live()
    world.launcher.start(train)
    sim.Worker(train).work(parts=1)
    world.rounds(1)
    assert sim.statuses(coordinator) == {
        "images": "DONE", "train": "RUNNING", "teacher": "RUNNING", "samples": "RUNNING", "scores": "WAITING",
    }  # fmt: skip


def test_a_job_is_lost_only_after_two_misses_and_unknown_is_no_verdict(world, sim):
    coordinator = world.start(sim.single("a"))
    world.rounds(1)
    (job,) = world.launcher.live()
    world.launcher.start(job)
    job.state = JobState.UNKNOWN
    world.rounds(20)
    assert only(coordinator).status is Status.RUNNING
    job.state = JobState.ENDED
    world.rounds(1)
    assert only(coordinator).facts.live.number == 1
    world.rounds(1)
    assert records.read(job.folder.verdict)["cause"] == "LOST"


def test_the_outcome_beats_the_scheduler(world, sim):
    coordinator = world.start(sim.single("a"))
    world.rounds(1)
    (job,) = world.launcher.live()
    world.launcher.start(job)
    world.launcher.end(job, Result.YIELDED)
    job.state = JobState.RUNNING
    world.rounds(1)
    assert only(coordinator).facts.last == 2
    assert not job.folder.verdict.exists()


def test_limits_bound_what_waits_and_what_runs_and_priority_decides(world, sim):
    nodes = tuple(sim.node("images", f"n{index}", salt=str(index), priority=index) for index in range(6))
    graph = type(sim.single("a"))("a", nodes)
    world.start(graph, cluster=world.cluster(limits={"queued": 2, "running": 3}))
    world.rounds(1)
    started = [records.read(job.folder.intent)["attempt"]["spec"]["science"]["salt"] for job in world.launcher.jobs]
    assert started == ["5", "4"]
    start_all(world)
    world.rounds(2)
    assert len(world.launcher.live()) == 3


def test_one_poll_asks_about_all_jobs(world, sim):
    nodes = tuple(sim.node("images", f"n{index}", salt=str(index)) for index in range(6))
    world.start(type(sim.single("a"))("a", nodes))
    world.rounds(1)
    before = world.launcher.polls
    world.rounds(1)
    assert world.launcher.polls == before + 1


def test_a_failing_poll_kills_nothing_is_shown_and_ends_the_coordinator_only_after_many(world, sim):
    coordinator = world.start(sim.single("a"))
    world.rounds(1)
    world.launcher.fail_polls = True
    world.rounds(2)
    assert coordinator.state.trouble == ""
    world.rounds(1)
    assert "cannot reach the controller" in coordinator.state.trouble
    world.launcher.fail_polls = False
    world.rounds(1)
    assert coordinator.state.trouble == ""
    world.launcher.fail_polls = True
    with pytest.raises(BackendError, match="in a row"):
        world.rounds(100, seconds=400.0)
    assert world.launcher.live()


def test_a_full_disk_pauses_submissions_until_it_can_be_written_again(world, sim, monkeypatch):
    coordinator = world.start(sim.small_graph("a"))
    world.rounds(1)
    world.run_jobs()

    def full(descriptor, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_all", full)
        said = []
        for _ in range(5):
            world.rounds(1, seconds=10.0)
            said.append(coordinator.state.full)
        assert {*said} == {said[0]} and ".tmp" not in said[0], "told once, and of no temporary file"
        assert "the disk is full" in said[0]
        assert len(world.launcher.jobs) == 1
    world.finish()
    assert coordinator.state.full == ""
    assert coordinator.state.exit_code == 0


def test_a_disk_that_fills_between_claim_and_submit_leads_to_one_attempt(world, sim, monkeypatch):
    coordinator = world.start(sim.single("a"))
    submit = world.launcher.submit

    def full(job):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(world.launcher, "submit", full)
    world.rounds(1)
    assert coordinator.state.full
    monkeypatch.setattr(world.launcher, "submit", submit)
    world.finish()
    assert only(coordinator).facts.last == 1


def test_another_content_under_the_same_key_is_an_error(world, sim):
    graph = sim.single("a")
    stage = world.store.stage("images", graph.nodes[0].key)
    world.start(graph)
    stage.path.mkdir(parents=True)
    records.write(stage.record, {"kind": "images", "other": True})
    with pytest.raises(StoreError, match="another content"):
        world.rounds(1)


def test_raising_steps_resumes_and_an_edited_graph_drops_its_marks(world, sim):
    world.start(sim.small_graph("a", wants=(2,)))
    world.finish()
    before = len(world.launcher.jobs)
    world.leave("a")
    more = world.start(sim.small_graph("a", wants=(2, 4)))
    world.finish()
    assert more.state.exit_code == 0
    again = world.launcher.jobs[before:]
    kinds = sorted(job.folder.path.parent.parent.name.split("-")[0] for job in again)
    assert kinds == ["evaluate", "sample", "train"], "images and the teacher are cached"


def test_an_error_that_ends_the_coordinator_is_in_the_journal_until_the_next_one_opens(world, sim, monkeypatch):
    graph = sim.single("a")
    coordinator = world.start(graph)

    def broken(*arguments):
        raise KeyError("resources")

    with monkeypatch.context() as patch:
        patch.setattr(world.launcher, "poll", broken)
        with pytest.raises(KeyError), noted(coordinator):
            world.rounds(2)
    world.leave("a")
    look = Observer(world.store, experiment=world.store.experiment("a"), graph=graph).look()
    assert look.left is Left.FAILED
    assert look.error == "KeyError: 'resources'"
    world.start(graph)
    world.finish()
    world.leave("a")
    look = Observer(world.store, experiment=world.store.experiment("a"), graph=graph).look()
    assert (look.left, look.error) == (Left.ENDED, "")


def test_a_coordinator_that_slept_through_the_end_of_its_lease_takes_no_marks_away(world, sim):
    old = world.start(sim.small_graph("a", wants=(2,)))
    world.finish()
    world.overtake("a")
    more = world.start(sim.small_graph("a", wants=(2, 4)))
    world.rounds(1)
    train = next(vertex for vertex in more.state.plan.vertices if vertex.node.name == "train")
    with pytest.raises(LeaseHeld):
        old.close()
    assert world.store.stage("train", train.key).mark("a").exists()


def test_a_worker_that_ends_while_its_stage_is_looked_at_has_published_what_it_made(world, sim, monkeypatch):
    coordinator = world.start(sim.single("a", "train"))
    world.rounds(1)
    numbers = StageDir.attempts

    def meanwhile(stage):
        world.run_jobs()
        return numbers(stage)

    monkeypatch.setattr(StageDir, "attempts", meanwhile)
    world.rounds(1)
    assert only(coordinator).status is Status.DONE
    told = [event for event in journal.events(world.store.experiment("a")) if isinstance(event, Surveyed)]
    assert [event.facts.parts for event in told if event.facts.ended] == [(2, 4)], "over, with nothing: never"


def test_a_stage_that_was_finished_since_the_last_look_is_not_started(world, sim, monkeypatch):
    graph = sim.single("a")
    coordinator = world.start(graph)
    want = Attempts.want

    def meanwhile(attempts, vertex):
        want(attempts, vertex)
        sim.publish_result(attempts.stage(vertex), vertex.node.spec, None)

    monkeypatch.setattr(Attempts, "want", meanwhile)
    world.rounds(1)
    assert only(coordinator).status is Status.DONE
    assert not world.launcher.jobs


def test_a_scheduler_that_takes_no_more_jobs_is_left_in_peace_and_asked_again_later(world, sim):
    nodes = tuple(sim.node("images", f"n{index}", salt=str(index)) for index in range(3))
    coordinator = world.start(type(sim.single("a"))("a", nodes), cluster=world.cluster(limits={"queued": 9}))
    world.launcher.full = True
    world.rounds(5)
    assert world.launcher.submits == 1, "after the first refusal everything waits"
    assert "takes no more jobs" in coordinator.state.paused
    assert all(not stage.facts.spent for _, stage in coordinator.state.rows()), "nobody is to blame"
    world.launcher.full = False
    world.rounds(20, seconds=10.0)
    assert coordinator.state.paused == ""
    assert len(world.launcher.live()) == 3
    assert all(stage.facts.last == 1 for _, stage in coordinator.state.rows()), "the same attempts"


def test_a_scheduler_that_is_known_to_be_cured_is_asked_at_once(world, sim):
    nodes = tuple(sim.node("images", f"n{index}", salt=str(index)) for index in range(3))
    coordinator = world.start(type(sim.single("a"))("a", nodes), cluster=world.cluster(limits={"queued": 9}))
    world.launcher.full, world.launcher.cured = True, lambda: not world.launcher.full
    world.rounds(6, seconds=610.0)
    world.rounds(1)  # by now it is left in peace for ten minutes
    refused = world.launcher.submits
    world.rounds(5, seconds=1.0)
    assert world.launcher.submits == refused, "while it is not"
    world.launcher.full = False
    world.rounds(2, seconds=1.0)
    assert len(world.launcher.live()) == 3 and coordinator.state.paused == ""


def test_a_job_that_ended_makes_room_for_one_that_was_refused(world, sim):
    nodes = tuple(sim.node("images", f"n{index}", salt=str(index)) for index in range(2))
    world.start(type(sim.single("a"))("a", nodes), cluster=world.cluster(limits={"queued": 1}))
    world.rounds(1)
    world.launcher.full = True
    (first,) = world.launcher.live()
    world.launcher.start(first)
    world.rounds(3)
    assert world.launcher.submits == 2, "the second was refused"
    world.launcher.full = False
    sim.Worker(first).work()
    world.launcher.end(first, Result.COMPLETED)
    world.rounds(2)
    assert world.launcher.submits == 3 and len(world.launcher.live()) == 1


def test_however_often_it_refuses_for_now_the_coordinator_lives_and_nothing_is_claimed_in_vain(world, sim):
    nodes = tuple(sim.node("images", f"n{index}", salt=str(index)) for index in range(70))
    coordinator = world.start(type(sim.single("a"))("a", nodes), cluster=world.cluster(limits={"queued": 90}))
    world.launcher.full = True
    world.rounds(2)
    assert [stage.facts.last for _, stage in coordinator.state.rows()].count(1) == 1
    world.rounds(70, seconds=610.0)
    assert world.launcher.submits >= 70, "more than polls may fail in a row"
    world.launcher.full = False
    world.rounds(4, seconds=610.0)
    assert coordinator.state.paused == ""
    assert len(world.launcher.live()) == 70
