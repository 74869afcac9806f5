"""The pure state machine: total, replayable, and cheap at 10,000 stages."""

import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.spec import Cause, JobState, Result
from stx.coordinator import events
from stx.coordinator.events import (
    Facts,
    Hung,
    Interrupted,
    Live,
    Observed,
    Opened,
    Ordered,
    Paused,
    Policy,
    Sought,
    Start,
    Surveyed,
    Tick,
    Troubled,
    Unseen,
)
from stx.coordinator.settle import is_done
from stx.coordinator.state import Status, new
from stx.coordinator.transitions import replay, step
from stx.endings import Ended
from stx.spec import Graph

POLICY = Policy(retries={"lost": 2, "oom": 1}, backoff_s=(0.0, 60.0), queued=3, running=4, stop_lead_s=30.0)


def facts_of(number: int):
    """Facts as directories could show them after `number` attempts."""
    live = st.builds(
        Live,
        number=st.just(number),
        experiment=st.sampled_from(["a", "b"]),
        host=st.just("host"),
        launcher=st.just("sim"),
        reachable=st.booleans(),
        job_id=st.sampled_from([None, "job"]),
        orphan=st.booleans(),
        stopped=st.booleans(),
        shared=st.sampled_from([(), ("b",)]),
    )
    ended = st.one_of(
        st.builds(Ended, st.just(number), st.sampled_from(["COMPLETED", "YIELDED"])),
        st.builds(Ended, st.just(number), st.just("FAILED"), st.sampled_from([cause.value for cause in Cause])),
    )
    common = {
        "parts": st.sampled_from([(), (2,), (4,), (2, 4)]),
        "artifact": st.booleans(),
        "last": st.just(number),
        "spent": st.dictionaries(st.sampled_from(["LOST", "OOM", "USER"]), st.integers(1, 5), max_size=2),
        "idle": st.integers(0, 6),
    }
    over = st.builds(Facts, **common, ended=st.one_of(st.none(), ended))
    return st.one_of(over, st.builds(Facts, **common, live=live)) if number else st.builds(Facts, **common)


ANY_FACTS = st.integers(0, 3).flatmap(facts_of)


def any_event(keys):
    key, number, now = st.sampled_from([*keys, "unknown"]), st.integers(0, 4), st.floats(0, 1e4)
    several = st.lists(st.sampled_from([*keys, "unknown"]), max_size=3).map(tuple)
    return st.one_of(
        st.builds(Opened, now, st.sampled_from(["x", "y"]), number, st.just(POLICY), st.dictionaries(key, ANY_FACTS)),
        st.builds(Surveyed, now, key, ANY_FACTS),
        st.builds(Observed, now, key, number, st.sampled_from(JobState), st.just("word")),
        st.builds(Sought, now, key, number),
        st.builds(Unseen, now, key, number, st.floats(0, 100)),
        st.builds(Hung, now, key, number, st.floats(0, 100)),
        st.builds(Ordered, now, st.uuids().map(str), st.sampled_from(["cancel", "retry"]), several, st.booleans()),
        st.builds(Ordered, now, st.sampled_from("pq"), st.just("leave")),
        st.builds(Interrupted, now),
        st.builds(Paused, now, st.sampled_from(["", "full"])),
        st.builds(Troubled, now, st.sampled_from(["", "no answer"])),
        st.builds(Tick, now),
        st.builds(Tick, now),
    )


def check(state) -> None:
    """What is kept beside the stages is what follows from them."""
    stages = list(state.stages)
    counts = {status: sum(stage.status is status for stage in stages) for status in Status}
    assert {status: count for status, count in state.counts.items() if count} == {s: c for s, c in counts.items() if c}
    live = {index for index, stage in enumerate(stages) if stage.facts.live is not None or stage.starting}
    assert state.live == live
    assert state.delayed == {index for index, stage in enumerate(stages) if stage.status is Status.DELAYED}
    for vertex, stage in zip(state.plan.vertices, stages, strict=True):
        assert (stage.status is Status.DONE) == is_done(vertex, stage.facts)
        assert stage.watch is None or stage.facts.live is not None
        assert stage.why or stage.status not in {Status.FAILED, Status.BLOCKED, Status.ELSEWHERE, Status.CANCELLED}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_events_in_any_order_keep_the_state_whole_and_never_start_beside_a_live_attempt(sim, data):
    graph = sim.small_graph("a")
    state = new(graph)
    told = data.draw(st.lists(any_event([node.key for node in graph.nodes]), max_size=25))
    for event in told:
        before = state
        state, actions = step(state, event)
        check(state)
        for start in [action for action in actions if isinstance(action, Start)]:
            stage = before.stage(start.key)
            assert stage.facts.live is None
            assert stage.starting == 0
            assert start.number == stage.facts.last + 1
    assert replay(graph, told) == state


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_events_survive_their_json(sim, data):
    event = data.draw(any_event(["key"]))
    assert events.parse(json.loads(json.dumps(events.dump(event)))) == event


def opened(graph, *, facts=None, policy=POLICY, clock="x", now=0.0):
    return step(new(graph), Opened(now, clock, 1, policy, facts or {}))[0]


def only(state):
    return next(iter(state.stages))


def test_the_same_survey_again_changes_nothing(sim):
    graph = sim.single("a")
    facts = Facts(last=1, ended=Ended(1, Result.FAILED, "LOST"), spent={"LOST": 2})
    state = opened(graph, facts={graph.nodes[0].key: facts})
    assert only(state).status is Status.DELAYED
    again, actions = step(state, Surveyed(30.0, graph.nodes[0].key, replace(facts)))
    assert again is state
    assert actions == ()


def test_a_delay_begins_anew_on_another_clock_and_goes_on_on_the_same(sim):
    graph = sim.single("a")
    facts = {graph.nodes[0].key: Facts(last=1, ended=Ended(1, Result.FAILED, "LOST"), spent={"LOST": 2})}
    state = opened(graph, facts=facts, now=0.0)
    assert only(state).due == 60.0
    same, _ = step(state, Opened(50.0, "x", 2, POLICY, facts))
    assert only(same).due == 60.0
    other, _ = step(state, Opened(5000.0, "y", 2, POLICY, facts))
    assert only(other).due == 5060.0


def test_what_nobody_will_make_blocks_instead_of_waiting_for_ever(sim):
    train = sim.node("train", "train", wants=(2,))
    freeze = sim.node("freeze", "teacher", run=sim.ref(train, 4))
    state = opened(Graph("a", (train, freeze)), facts={train.key: Facts(parts=(2,))})
    assert state.stage(freeze.key).status is Status.BLOCKED
    assert "does not hold" in state.stage(freeze.key).why


def test_nodes_that_share_a_key_want_the_union(sim):
    first = sim.node("train", "one", wants=(2,))
    second = sim.node("train", "two", wants=(4,))
    state = opened(Graph("a", (first, second)), facts={first.key: Facts(parts=(2,))})
    assert len(state.stages) == 1
    assert only(state).status is Status.READY


def test_a_step_costs_the_same_at_ten_thousand_stages(sim):
    """Counted, not timed: one survey replaces two short tuples and settles the stage and what depends on it."""
    root = sim.node("images", "root")
    leaves = [
        sim.node("train", f"n{index}", wants=(2,), salt=str(index), latents=sim.ref(root)) for index in range(10_000)
    ]
    graph = Graph("a", (root, *leaves))
    state = opened(graph, facts={root.key: Facts(artifact=True)})
    after, _ = step(state, Surveyed(1.0, leaves[77].key, Facts(parts=(2,), last=1)))
    changed = [
        index for index, (old, fresh) in enumerate(zip(state.stages, after.stages, strict=True)) if old is not fresh
    ]
    assert len(changed) == 1
    shared = [old is fresh for old, fresh in zip(state.stages.chunks, after.stages.chunks, strict=True)]
    assert shared.count(False) == 1
    assert after.plan is state.plan
