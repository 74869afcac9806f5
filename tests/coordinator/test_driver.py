"""The coordinator on real files, with a simulated scheduler: claims, budgets, sharing, adoption, stops, full disks."""

import errno

import pytest

from jobs import files
from jobs.spec import Cause, JobState, Result
from stx import records
from stx.coordinator.inbox import Command, put
from stx.coordinator.state import Status
from stx.errors import BackendError, LeaseHeld, StoreError


def only(coordinator):
    return next(stage for _, stage in coordinator.state.rows())


def start_all(world):
    for job in world.launcher.live():
        world.launcher.start(job)


def end_all(world, result=Result.COMPLETED, **words):
    for job in world.launcher.live():
        world.launcher.start(job)
        if job.state is JobState.RUNNING:
            world.launcher.end(job, result, **words)


def test_a_whole_experiment_runs_to_its_end(world, sim):
    coordinator = world.start(sim.small_graph("a"))
    world.finish()
    assert coordinator.state.exit_code == 0
    assert set(sim.statuses(coordinator).values()) == {"DONE"}
    world.check()


def test_what_is_finished_starts_no_job_in_another_experiment(world, sim):
    world.start(sim.small_graph("a"))
    world.finish()
    jobs = len(world.launcher.jobs)
    other = world.start(sim.small_graph("b"))
    world.rounds(2)
    assert other.state.finished
    assert len(world.launcher.jobs) == jobs


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


def test_a_yielded_attempt_is_run_again_without_counting_as_lost(world, sim):
    coordinator = world.start(sim.single("a"))
    world.rounds(1)
    end_all(world, Result.YIELDED)
    world.rounds(1)
    assert only(coordinator).status is Status.RUNNING
    assert only(coordinator).facts.last == 2
    assert only(coordinator).facts.spent == {}


def test_yields_without_progress_are_delayed_and_never_fail(world, sim):
    coordinator = world.start(sim.single("a"))
    for _ in range(3):
        world.rounds(1)
        end_all(world, Result.YIELDED)
    world.rounds(1)
    assert only(coordinator).status is Status.DELAYED
    assert only(coordinator).delay_s == 60
    world.rounds(1, seconds=70.0)
    world.rounds(1)
    end_all(world, Result.YIELDED)
    world.rounds(1)
    assert only(coordinator).delay_s == 120
    for _ in range(8):
        world.now += 2000
        world.rounds(1)
        end_all(world, Result.YIELDED)
    world.rounds(1)
    assert only(coordinator).delay_s == 1800


def test_yields_with_progress_are_never_delayed(world, sim):
    coordinator = world.start(sim.single("a", "train"))
    for number in range(1, 8):
        world.rounds(1)
        assert only(coordinator).facts.last == number
        (job,) = world.launcher.live()
        world.launcher.start(job)
        sim.Worker(job).save()
        world.launcher.end(job, Result.YIELDED)


def test_a_worker_that_completes_without_a_result_fails_after_three_times(world, sim):
    coordinator = world.start(sim.single("a"))
    for _ in range(5):
        world.rounds(1)
        end_all(world)
    world.rounds(1)
    assert only(coordinator).status is Status.FAILED
    assert "completed 3 times without publishing" in only(coordinator).why
    assert len(world.launcher.jobs) == 3
    assert coordinator.state.exit_code == 3


def test_a_milestone_that_is_still_missing_is_a_new_attempt_and_free(world, sim):
    coordinator = world.start(sim.single("a", "train"))
    for parts in (1, 2):
        world.rounds(1)
        (job,) = world.launcher.live()
        world.launcher.start(job)
        sim.Worker(job).work(parts=1)
        world.launcher.end(job, Result.COMPLETED)
        assert only(coordinator).facts.last == parts
    world.rounds(1)
    assert only(coordinator).status is Status.DONE


def test_a_user_error_fails_the_stage_and_blocks_only_what_needs_it(world, sim):
    coordinator = world.start(sim.small_graph("a"))
    world.rounds(1)
    world.run_jobs()
    world.rounds(1)
    end_all(world, Result.FAILED, cause=Cause.USER, message="ValueError: no")
    world.rounds(2)
    assert sim.statuses(coordinator) == {
        "images": "DONE", "train": "FAILED", "teacher": "BLOCKED", "samples": "BLOCKED", "scores": "BLOCKED",
    }  # fmt: skip
    assert "ValueError: no" in coordinator.state.stage(sim.small_graph("a").nodes[1].key).why
    assert coordinator.state.finished
    assert coordinator.state.exit_code == 3


def test_a_user_error_counts_only_under_the_code_that_made_it(world, sim):
    world.start(sim.single("a"))
    world.rounds(1)
    end_all(world, Result.FAILED, cause=Cause.USER)
    world.rounds(1)
    world.kill("a")
    again = world.start(sim.single("a"))
    assert only(again).status is Status.FAILED
    world.kill("a")
    mended = world.start(sim.single("a"), code="code2")
    assert only(mended).status is Status.READY


def test_a_lost_attempt_is_retried_with_backoff_until_the_budget_is_spent(world, sim):
    cluster = world.cluster(retries={"lost": 2}, backoff_s=[0, 60])
    coordinator = world.start(sim.single("a"), cluster=cluster)
    waits = []
    for _ in range(3):
        world.rounds(1)
        waits.append(only(coordinator).delay_s)
        world.now += 100
        world.rounds(1)
        start_all(world)
        for job in world.launcher.live():
            job.state = JobState.ENDED
        world.rounds(2)
    assert only(coordinator).status is Status.FAILED
    assert only(coordinator).facts.spent == {"LOST": 3}
    assert waits == [0, 0, 60]


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


def test_a_refused_job_is_loud_and_spends_the_setup_budget(world, sim):
    world.launcher.refuse = "Invalid account"
    coordinator = world.start(sim.single("a"), cluster=world.cluster(retries={"setup": 1}, backoff_s=[0]))
    world.rounds(4)
    assert only(coordinator).status is Status.FAILED
    assert "Invalid account" in only(coordinator).why
    assert only(coordinator).facts.last == 2


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


def test_a_retry_gives_the_whole_budget_again(world, sim):
    cluster = world.cluster(retries={"oom": 0})
    coordinator = world.start(sim.single("a"), cluster=cluster)
    world.rounds(1)
    end_all(world, Result.FAILED, cause=Cause.OOM)
    world.rounds(1)
    assert only(coordinator).status is Status.FAILED
    (key,) = coordinator.state.plan.index
    put(world.store.experiment("a"), Command("retry", (key,)))
    world.rounds(1)
    assert only(coordinator).status is Status.RUNNING
    assert only(coordinator).facts.spent == {}


def test_accepting_other_science_code_gives_a_refused_stage_another_attempt(world, sim):
    coordinator = world.start(sim.single("a"))
    world.rounds(1)
    end_all(world, Result.FAILED, cause=Cause.USER, message="was written by other science code")
    world.rounds(1)
    assert only(coordinator).status is Status.FAILED
    world.leave("a")
    accepting = world.start(sim.single("a"), accept_code=True)
    world.rounds(1)
    assert only(accepting).status is Status.RUNNING
    end_all(world, Result.FAILED, cause=Cause.USER)
    world.rounds(2)
    assert only(accepting).status is Status.FAILED


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
        world.rounds(100)
    assert world.launcher.live()


def test_a_full_disk_pauses_submissions_until_it_can_be_written_again(world, sim, monkeypatch):
    coordinator = world.start(sim.small_graph("a"))
    world.rounds(1)
    world.run_jobs()

    def full(descriptor, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "_write_all", full)
        world.rounds(3, seconds=10.0)
        assert "No space left" in coordinator.state.full
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


def test_a_holder_that_lost_its_lease_stops_writing(world, sim):
    old = world.start(sim.single("a"))
    world.dead.add(world.processes["a"])
    world.start(sim.single("a"))
    with pytest.raises(LeaseHeld):
        old.round()


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


def test_a_hang_is_cancelled_only_when_the_rest_of_the_world_is_well(world, sim):
    nodes = tuple(sim.node("images", f"n{index}", salt=str(index)) for index in range(3))
    coordinator = world.start(type(sim.single("a"))("a", nodes))
    world.rounds(1)
    start_all(world)
    silent, *beating = world.launcher.live()
    for counter in range(40):
        for job in beating:
            records.write(job.folder.heartbeat, {"counter": counter, "phase": "step", "numbers": {}})
        world.rounds(1, seconds=30.0)
    assert silent.state is JobState.ENDED
    assert all(job.state is JobState.RUNNING for job in beating)
    assert records.read(silent.folder.verdict)["cause"] == "HANG"
    for _ in range(40):
        world.rounds(1, seconds=30.0)
    assert all(job.state is JobState.RUNNING for job in beating), "all stand still: it is the store, not they"
    assert all(stage.unseen_s > 0 for _, stage in coordinator.state.rows() if stage.watch and stage.watch.number == 1)
