"""The coordinator on real files, with a simulated scheduler: how often an attempt is made again, and when no more."""

from jobs.spec import Cause, JobState, Result
from stx import records
from stx.coordinator.inbox import Command, put
from stx.coordinator.state import Status
from tests.coordinator.simulated import end_all, only, start_all


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


def test_a_refused_job_is_loud_and_spends_the_setup_budget(world, sim):
    world.launcher.refuse = "Invalid account"
    coordinator = world.start(sim.single("a"), cluster=world.cluster(retries={"setup": 1}, backoff_s=[0]))
    world.rounds(4)
    assert only(coordinator).status is Status.FAILED
    assert "Invalid account" in only(coordinator).why
    assert only(coordinator).facts.last == 2


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
