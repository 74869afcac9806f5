"""Two coordinators of two experiments on one store, killed at any call into the system, with workers that die or yield.

Whatever happens first, once things go well again both experiments end with the very same results as an untouched run,
and at no moment is more than one attempt of a stage live, or more than one job at work on it.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.spec import Cause, JobState, Result
from stx.coordinator import journal
from stx.coordinator.state import Status
from stx.coordinator.transitions import replay

GENEROUS = {"lost": 1000, "node": 1000, "oom": 1000, "hang": 1000, "nan": 1000, "setup": 1000, "no_space": 1000}
MOVES = st.one_of(
    st.tuples(st.just("round"), st.sampled_from("ab"), st.none()),
    st.tuples(st.just("round"), st.sampled_from("ab"), st.integers(0, 80)),  # killed after so many calls
    st.tuples(st.just("kill"), st.sampled_from("ab"), st.none()),
    st.tuples(st.just("start"), st.sampled_from("ab"), st.one_of(st.none(), st.integers(0, 60))),
    st.tuples(
        st.just("job"), st.integers(0, 50), st.sampled_from(["start", "part", "yield", "save", "done", "die", "oom"])
    ),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 30.0, 3000.0]), st.none()),
    st.tuples(st.just("timeout"), st.none(), st.none()),
)


class Story:
    """Carries moves out on one world."""

    def __init__(self, world, sim) -> None:
        self.world = world
        self.sim = sim
        self.graphs = {"a": sim.small_graph("a", wants=(2,)), "b": sim.small_graph("b", wants=(2, 4))}

    def move(self, what, first, second) -> None:
        world = self.world
        if what == "round" and first in world.coordinators:
            if not world.within(second, world.coordinators[first].round):
                world.kill(first)
        elif what == "kill":
            world.kill(first)
        elif what == "start" and first not in world.coordinators:
            if not world.within(second, lambda: self.start(first)):
                world.kill(first)
        elif what == "job":
            self.move_job(first, second)
        elif what == "wait":
            world.now += first
        elif what == "timeout":
            world.launcher.timeouts = 1
        world.check()

    def start(self, experiment) -> None:
        retries = self.world.cluster(retries=GENEROUS, backoff_s=[0, 60])
        self.world.start(self.graphs[experiment], cluster=retries)

    def move_job(self, number, how) -> None:
        launcher = self.world.launcher
        live = launcher.live()
        if not live:
            return
        job = live[number % len(live)]
        launcher.start(job)
        if job.state is not JobState.RUNNING or how == "start":
            return
        worker = self.sim.Worker(job)
        if how in {"part", "yield"}:
            worker.work(parts=1)
        if how in {"save", "yield"}:
            worker.save()
        if how == "done":
            worker.work()
            launcher.end(job, Result.COMPLETED)
        elif how == "yield":
            launcher.end(job, Result.YIELDED)
        elif how == "oom":
            launcher.end(job, Result.FAILED, cause=Cause.OOM)
        elif how == "die":
            job.state = JobState.ENDED

    def end_well(self) -> None:
        for experiment in "ab":
            if experiment not in self.world.coordinators:
                self.start(experiment)
        self.world.finish(limit=200)
        self.world.check()


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(moves=st.lists(MOVES, max_size=40))
def test_any_story_ends_with_the_results_of_an_untouched_run(new_world, sim, moves):
    tell(moves, new_world=new_world, sim=sim)


@pytest.mark.full
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(moves=st.lists(MOVES, max_size=60))
def test_any_of_many_stories_ends_with_the_results_of_an_untouched_run(new_world, sim, moves):
    tell(moves, new_world=new_world, sim=sim)


def tell(moves, *, new_world, sim) -> None:
    story = Story(new_world(), sim)
    for move in moves:
        story.move(*move)
    story.end_well()
    untouched = Story(new_world(), sim)
    untouched.end_well()
    assert story.world.digests() == untouched.world.digests()
    for experiment, coordinator in story.world.coordinators.items():
        assert set(story.sim.statuses(coordinator).values()) == {Status.DONE}
        told = journal.events(story.world.store.experiment(experiment))
        assert replay(story.graphs[experiment], told) == coordinator.state


def test_kills_all_through_a_run_change_no_result(new_world, sim):
    killed_every(range(0, 200, 23), new_world=new_world, sim=sim)


@pytest.mark.full
def test_a_kill_before_every_single_call_of_a_run_changes_no_result(new_world, sim):
    killed_every(range(200), new_world=new_world, sim=sim)


def killed_every(counts, *, new_world, sim) -> None:
    untouched = Story(new_world(), sim)
    untouched.end_well()
    for calls in counts:
        story = Story(new_world(), sim)
        story.start("b")
        for _ in range(12):
            if not story.world.within(calls, lambda one=story: one.world.rounds(1)):
                story.world.kill("b")
                story.start("b")
            story.world.check()
            story.world.run_jobs()
        story.end_well()
        assert story.world.digests() == untouched.world.digests(), f"killed every {calls} calls"


def test_another_coordinator_acting_in_between_any_two_calls_submits_nothing_twice(new_world, sim):
    interleave(range(0, 60, 7), new_world=new_world, sim=sim)


@pytest.mark.full
def test_another_coordinator_acting_in_between_any_two_calls_of_all_submits_nothing_twice(new_world, sim):
    interleave(range(80), new_world=new_world, sim=sim)


def interleave(counts, *, new_world, sim) -> None:
    for calls in counts:
        story = Story(new_world(), sim)
        world = story.world
        for experiment in "ab":
            story.start(experiment)
        first, second = world.coordinators["a"], world.coordinators["b"]

        def several_rounds(one=second) -> None:
            for _ in range(5):
                one.round()

        for _ in range(8):
            world.between(calls, first.round, several_rounds)
            world.check()
            world.run_jobs()
        tags = [job.handle.tag for job in world.launcher.jobs]
        assert len(tags) == len(set(tags)), f"after {calls} calls"
        story.end_well()


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(endings=st.lists(st.sampled_from(["yield", "die", "oom", "done", "nothing", "user"]), max_size=30))
def test_if_every_attempt_ends_the_run_ends(new_world, sim, endings):
    """With the usual budgets, and workers that keep failing in any way: after the last ending all go well, or rest."""
    world = new_world()
    world.start(sim.small_graph("a"))
    launcher, left = world.launcher, list(endings)
    for _ in range(150):
        world.rounds(1, seconds=2000.0)
        for job in launcher.live():
            launcher.start(job)
            how = left.pop() if left else "done"
            if how == "done":
                sim.Worker(job).work()
            if how == "die":
                job.state = JobState.ENDED
            elif how in {"oom", "user"}:
                launcher.end(job, Result.FAILED, cause=Cause(how.upper()))
            else:
                launcher.end(job, Result.YIELDED if how == "yield" else Result.COMPLETED)
        world.check()
        if world.coordinators["a"].state.finished:
            return
    raise AssertionError(sim.statuses(world.coordinators["a"]))
