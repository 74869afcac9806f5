"""Nodes as `ray.nodes()` of 2.60 has them, and what fits."""

import pytest

from jobs.launchers.ray import nodes
from jobs.spec import Resources

GIB = 2.0**30


def record(number, *, name="10.0.0.7", host="gpu7", alive=True, cpus=8.0, gpus=0.0, memory=16 * GIB):
    has = {"CPU": cpus, "memory": memory, "object_store_memory": GIB, "node:10.0.0.7": 1.0}
    return {
        "NodeID": number,
        "Alive": alive,
        "NodeManagerAddress": "10.0.0.7",
        "NodeManagerHostname": host,
        "NodeName": name,
        "Resources": has | ({"GPU": gpus} if gpus else {}),
    }


def test_a_node_is_called_as_its_owner_called_it_else_by_its_host():
    found = nodes.parse([record("b", name="n2"), record("a"), record("c", alive=False)])
    assert [(node.name, node.number) for node in found] == [("gpu7", "a"), ("n2", "b")]
    assert (found[0].cpus, found[0].gpus, found[0].memory_gb) == (8.0, 0.0, 16.0)


THERE = nodes.parse([record(f"c{one}", name=f"c{one}") for one in range(3)] + [record("g", name="g", gpus=4.0)])
HAS = "this Ray cluster has 3 x 8 CPUs, 0 GPUs, 16.0 GB; 8 CPUs, 4 GPUs, 16.0 GB"


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ({}, None),
        ({"nodes": 4, "ranks_per_node": 4, "cpus_per_rank": 2, "mem_gb": 16.0}, None),
        ({"ranks_per_node": 4, "gpus_per_rank": 1}, None),
        ({"cpus_per_rank": 9}, f"a node of this job takes 9 CPUs; {HAS}"),
        ({"ranks_per_node": 5, "gpus_per_rank": 1}, f"a node of this job takes 5 GPUs; {HAS}"),
        ({"mem_gb": 16.5}, f"a node of this job takes 16.5 GB of memory; {HAS}"),
        ({"nodes": 2, "gpus_per_rank": 1}, f"2 nodes of this size are wanted, and 1 would do; {HAS}"),
        ({"nodes": 5}, f"5 nodes of this size are wanted, and 4 would do; {HAS}"),
    ],
)
def test_what_never_fits_is_told_with_what_there_is(size, words):
    assert nodes.refusal(THERE, Resources(**size)) == words


def test_many_different_nodes_are_not_all_listed():
    many = nodes.parse([record(str(one), name=str(one), cpus=float(one)) for one in range(1, 9)])
    assert nodes.described(many).endswith("5 CPUs, 0 GPUs, 16.0 GB; others")
    assert nodes.refusal([], Resources()) == "this Ray cluster has no node"
