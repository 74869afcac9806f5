"""What is asked of Ray, and what its tables mean."""

from pathlib import Path

from jobs import contract
from jobs.launchers.ray import group, names, request
from jobs.launchers.ray.nodes import Node
from jobs.spec import Cause, JobSpec, Resources

GIB = 1 << 30


def job(folder: Path = Path("/a"), **size: object) -> JobSpec:
    return JobSpec("stx-a-b-1", ("true",), folder, folder, Resources(**size))


def test_a_bundle_is_one_node_with_all_its_ranks():
    asked = request.of(job(nodes=2, ranks_per_node=4, cpus_per_rank=3, gpus_per_rank=1, mem_gb=8.0))
    assert asked["bundles"] == [{"CPU": 12, "GPU": 4, "memory": 8 * GIB}] * 2
    assert (asked["strategy"], asked["rank"]) == ("STRICT_SPREAD", {"CPU": 3, "GPU": 1, "memory": 2 * GIB})


def test_a_job_of_one_node_without_gpus_asks_for_none():
    asked = request.of(job(ranks_per_node=2, mem_gb=1.0))
    assert (asked["bundles"], asked["strategy"]) == ([{"CPU": 2, "memory": GIB}], "PACK")


def test_people_see_whose_job_it_is(tmp_path):
    spec = contract.prepare(tmp_path, "report")
    assert request.of(spec)["label"] == spec.tag
    intent = spec.attempt_dir.with_name("000.intent.json")
    intent.write_text('{"experiment": "mine", "name": "run:seed=1"}')
    assert request.of(spec)["label"] == "mine/run:seed=1"


def row(name, *, state="CREATED", bundles=1):
    placed = {bundle: f"id{bundle}" for bundle in range(bundles)} if state == "CREATED" else {0: ""}
    return {"name": name, "placement_group_id": f"pg-{name}", "state": state, "bundles_to_node_id": placed}


def test_groups_are_told_with_the_actors_that_live_and_their_nodes():
    live = group.live(["a-1-1", "a-1-0", "a-10-0", "someone's"])
    assert live == {"a-1": [1, 0], "a-10": [0]}
    there = [Node("n1", "id0", 1, 0, 1), Node("n2", "id1", 1, 0, 1)]
    one = group.of(row("a-1", bundles=2), live=live["a-1"], nodes=there, failed={})
    assert (one.number, one.tag, one.nodes, one.live, one.waits) == ("pg-a-1", "a-1", ("n1", "n2"), (0, 1), False)
    why = group.Failure("a-10", "why", Cause.NODE)
    ten = group.of(row("a-10", state="PENDING"), live=live["a-10"], nodes=there, failed={"pg-a-10": why})
    assert (ten.nodes, ten.live, ten.waits, ten.failed, ten.cause) == ((), (0,), True, "why", Cause.NODE)
    for gone in ({}, row("a-2", state="REMOVED")):
        assert group.of(gone, live=(), nodes=there, failed={}) is None


def test_an_actor_is_found_by_its_tag_and_rank():
    assert names.actors("a-1", 2) == ["a-1-0", "a-1-1"]
    assert names.rank_of("a-1-0") == ("a-1", 0) and names.rank_of("serve") is None and names.rank_of("-1") is None
