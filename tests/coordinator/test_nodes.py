"""The list of bad nodes: what counts, for how long, for whom; and attempts that keep away from them."""

import json
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import outcome
from jobs.outcome import Outcome
from jobs.spec import Cause, JobState, Result
from stx.coordinator import nodes
from stx.coordinator.nodes import Evidence
from tests.coordinator.simulated import only

DAY = 86400.0
PIECE = Evidence(
    "n1", cluster="here", tag="t1", attempt="a/001", experiment="e", message="broken", time=0.0, expire_s=DAY
)

pieces = st.builds(
    Evidence,
    node=st.sampled_from(["n1", "n2", "n3"]),
    cluster=st.sampled_from(["here", "there"]),
    tag=st.sampled_from("abcd"),
    attempt=st.just("a/001"),
    experiment=st.just("e"),
    message=st.just("broken"),
    time=st.sampled_from([0.0, 10.0, 20.0]),
    expire_s=st.sampled_from([5.0, 15.0, 25.0]),
    forgotten=st.booleans(),
)


@given(
    found=st.lists(pieces, max_size=12), now=st.sampled_from([1.0, 12.0, 31.0]), after=st.integers(1, 3), data=st.data()
)
def test_a_node_is_bad_while_enough_evidence_counts_in_whatever_order_it_is_found(found, now, after, data):
    listed = nodes.bad(found, cluster="here", now=now, after=after)
    assert listed == nodes.bad(data.draw(st.permutations(found)), cluster="here", now=now, after=after)
    counts = {
        node: sum(
            one.node == node and one.cluster == "here" and not one.forgotten and now < one.time + one.expire_s
            for one in found
        )
        for node in ("n1", "n2", "n3")
    }
    assert set(listed) == {node for node, count in counts.items() if count >= after}
    assert [counts[node] for node in listed] == sorted((counts[node] for node in listed), reverse=True)


def test_evidence_counts_until_it_expires():
    assert nodes.bad([PIECE], cluster="here", now=DAY - 1, after=1) == ["n1"]
    assert nodes.bad([PIECE], cluster="here", now=DAY, after=1) == []


def fail_for(world, node, *, cause=Cause.NODE):
    """The job that lives begins, and its rank blames the node that it is on."""
    (job,) = world.launcher.live()
    world.launcher.start(job)
    said = Outcome(0, Result.FAILED, cause, f"{node}: no such GPU", {"node": node})
    outcome.publish(job.folder, said)
    job.state = JobState.ENDED


def avoided(world, number):
    (intent,) = world.store.stages.glob(f"*/attempts/{number:03d}.intent.json")
    return json.loads(intent.read_bytes())["job"]["avoid"]


@pytest.fixture
def running(world, sim):
    coordinator = world.start(sim.single("alpha"))
    world.rounds()
    return coordinator


def test_the_next_attempt_keeps_away_from_the_node_that_a_rank_blamed(world, running):
    fail_for(world, "n1")
    world.rounds(2)
    assert only(running).facts.last == 2
    assert avoided(world, 1) == [] and avoided(world, 2) == ["n1"]
    (piece,) = nodes.found(world.store)
    assert (piece.node, piece.cluster, piece.experiment) == ("n1", "sim", "alpha") and "no such GPU" in piece.message


def test_the_next_attempt_keeps_away_from_the_node_that_the_scheduler_blamed(world, running):
    (job,) = world.launcher.live()
    world.launcher.start(job)
    world.launcher.causes[job.handle.job_id] = (Cause.NODE, ("n7",))
    job.state = JobState.ENDED
    world.rounds(4)
    assert only(running).facts.spent == {"NODE": 1}
    assert avoided(world, 2) == ["n7"]


@pytest.mark.parametrize("cause", [Cause.USER, Cause.LOST, Cause.OOM])
def test_no_other_cause_is_evidence_against_a_node(world, running, cause):
    fail_for(world, "n1", cause=cause)
    world.rounds(2)
    assert nodes.found(world.store) == []


def test_another_experiment_of_the_cluster_keeps_away_too_and_one_of_another_cluster_does_not(world, sim, running):
    fail_for(world, "n1")
    world.rounds(1)
    world.start(sim.single("beta", kind="train"))
    world.start(sim.single("gamma", kind="freeze"), launcher=sim.Launcher("elsewhere"))
    world.rounds(2)
    found = {}
    for path in world.store.stages.glob("*/attempts/*.intent.json"):
        record = json.loads(path.read_bytes())
        found[record["experiment"]] = record["job"]["avoid"]
    assert found["beta"] == ["n1"] and found["gamma"] == []


def test_a_launcher_that_can_do_without_none_keeps_them_all(world, running):
    world.launcher.spare = 0
    fail_for(world, "n1")
    world.rounds(2)
    assert avoided(world, 2) == []


def test_a_node_that_needs_more_evidence_is_used_until_then(world, sim):
    world.start(sim.single("alpha"), cluster=world.cluster(launcher="slurm", bad_nodes={"after": 2}))
    world.rounds()
    for _ in range(2):
        fail_for(world, "n1")
        world.rounds(2, seconds=400)
    assert avoided(world, 2) == [] and avoided(world, 3) == ["n1"]


def test_what_is_forgotten_is_not_found_again(world, sim, running):
    fail_for(world, "n1")
    world.rounds(2)
    assert nodes.forget(world.store, "n1") == 1
    assert nodes.forget(world.store, "n1") == 0
    world.kill("alpha")
    world.start(sim.single("alpha"))
    fail_for(world, "n2")
    world.rounds(2, seconds=400)
    assert avoided(world, 3) == ["n2"]


def test_an_attempt_that_failed_long_ago_is_no_evidence_any_more(world, sim, running):
    fail_for(world, "n1")
    (path,) = world.store.stages.glob("*/attempts/001/outcome-0.json")
    long_ago = path.stat().st_mtime - DAY - 1
    os.utime(path, (long_ago, long_ago))
    world.rounds(2)
    assert nodes.found(world.store) == []


@pytest.mark.parametrize("name", ["n1\n#SBATCH --uid=0", "../n1", "", "-x", "n 1", "n[1-9]", 7])
def test_what_is_no_name_of_a_node_never_gets_into_a_request(world, running, name):
    """In a store that a group shares, others write outcomes and evidence."""
    fail_for(world, name)
    world.rounds(2)
    assert avoided(world, 2) == []
    world.store.nodes.mkdir(exist_ok=True)
    planted = replace(PIECE, node=name, cluster="sim", time=1e12)
    (world.store.nodes / "planted.json").write_text(json.dumps(planted.__dict__))
    (world.store.nodes / "damaged.json").write_text("{")
    assert nodes.found(world.store) == []


def test_a_planted_piece_leads_nobody_out_of_the_store(world, running):
    world.store.nodes.mkdir()
    planted = replace(PIECE, tag="../../outside", time=1e12)
    (world.store.nodes / "n1-t1.json").write_text(json.dumps(planted.__dict__))
    assert nodes.forget(world.store, "n1") == 0
