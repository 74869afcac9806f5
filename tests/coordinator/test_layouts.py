"""The cluster file's list of layouts: which one an attempt takes, on real files with a simulated scheduler."""

import pytest

from jobs.spec import Cause, Result
from stx import records
from stx.coordinator.inbox import Command, put
from tests.coordinator.simulated import end_all, only


@pytest.fixture
def attempts(world, sim):
    """Runs one stage on a list of numbers of ranks, its attempts ending as told; how many ranks each attempt had."""

    def attempts(*ends, layouts=(8, 4, 2), largest=8, retries=5, before=None):
        world.launcher.largest = largest
        listed = [{"ranks_per_node": ranks} for ranks in layouts]
        cluster = world.cluster(
            stages={"default": {"layouts": listed, "time": "24h"}}, retries={"oom": retries, "lost": retries}
        )
        coordinator = world.start(sim.single("a"), cluster=cluster)
        for number, end in enumerate(ends):
            world.rounds(3, seconds=600.0)
            if before:
                before(number, coordinator)
            end_all(world, Result.YIELDED if end is None else Result.FAILED, **({"cause": end} if end else {}))
        world.rounds(3, seconds=600.0)
        stage = world.store.stage("images", next(iter(coordinator.state.rows()))[0].key)
        records_of = [records.read(stage.attempt(number).attempt) for number in stage.attempts()]
        assert [job.ranks for job in world.launcher.jobs] == [one["layout"]["ranks"] for one in records_of]
        return [one["layout"]["ranks"] for one in records_of], coordinator

    return attempts


def test_the_first_layout_is_taken_where_it_can_be_granted(attempts):
    assert attempts(None, Cause.LOST)[0] == [8, 8, 8]


def test_layouts_that_can_never_be_granted_are_passed_over(attempts):
    assert attempts(None, largest=5)[0] == [4, 4]


def test_after_an_attempt_without_memory_the_next_layout_follows_and_the_last_one_stays(attempts):
    assert attempts(Cause.OOM, Cause.LOST, None, Cause.OOM, Cause.OOM)[0] == [8, 4, 4, 4, 2, 2]


def test_after_an_attempt_without_memory_a_layout_that_can_never_be_granted_is_not_next(attempts):
    assert attempts(Cause.OOM, Cause.OOM, layouts=(2, 8, 1), largest=4)[0] == [2, 1, 1]


def test_where_no_layout_could_be_granted_the_scheduler_says_so_of_the_first(attempts):
    assert attempts(largest=1)[0] == [8]


def test_the_budget_for_memory_ends_the_list(attempts):
    tried, coordinator = attempts(Cause.OOM, Cause.OOM, Cause.OOM, retries=1)
    assert tried == [8, 4]
    assert only(coordinator).why.startswith("OOM")


def test_a_retry_by_a_person_begins_with_the_first_layout_again(attempts, world):
    def retry(number, coordinator):
        if number == 2:
            put(world.store.experiment("a"), Command("retry", (next(iter(coordinator.state.rows()))[0].key,)))

    tried, _ = attempts(Cause.OOM, Cause.OOM, None, retries=1, before=retry)
    assert tried == [8, 4, 8]


def test_a_layout_that_the_cluster_file_has_changed_since_was_not_tried_yet(attempts, world):
    assert attempts(Cause.OOM)[0] == [8, 4]
    world.leave("a")
    end_all(world, Result.YIELDED)
    assert attempts(layouts=(6, 4))[0] == [8, 4, 6]
