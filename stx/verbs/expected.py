"""What the nodes of a Ray cluster of our own will have, by the cluster file and the machine or the site: jobs are
planned before the cluster is up.
"""

import shutil

from jobs import processes, slots
from jobs.launchers.local import memory_gb
from jobs.launchers.ray.nodes import Node
from jobs.launchers.ray.up import size
from jobs.launchers.ray.up.folder import Asked
from jobs.launchers.slurm import site
from stx.config.cluster import Cluster


def called(cluster: Cluster) -> str:
    """What its Ray clusters are called in a store: one whose nodes are processes of this machine is this machine's, and
    nobody else can see whether it lives.
    """
    return f"{cluster.name}@{processes.machine()}" if cluster.ray.where == "local" else cluster.name


def nodes_of(cluster: Cluster, *, up: Asked | None = None) -> list[Node]:
    """All of them, the head first; none where that cannot be known from here. `up`: the one that is there, which may
    have another number of nodes than the file says.
    """
    if up is not None:
        cluster = cluster.model_copy(update={"ray": cluster.ray.model_copy(update={"nodes": up.nodes})})
    each = _on_slurm(cluster) if cluster.ray.where == "slurm" else share(cluster)
    if each is None:
        return []
    cpus, gpus, mem_gb = each
    found = []
    for number in range(cluster.ray.nodes):
        offered = size.of(cpus=cpus, gpus=gpus, mem_gb=mem_gb, head=number == 0, environment={})
        memory = offered.memory_bytes / 2**30
        found.append(Node(f"node {number}", "", cpus=offered.cpus, gpus=offered.gpus, memory_gb=memory))
    return found


def share(cluster: Cluster) -> tuple[int | None, int | None, float | None]:
    """Cores, GPUs and memory of each of several nodes on one machine, which divide it, but not its GPUs: Ray numbers
    those of every node from 0. None: all that the node has.
    """
    asked = cluster.ray
    divided = asked.where == "local" and asked.nodes > 1
    cpus = max(1, slots.cores() // asked.nodes) if divided else None
    mem_gb = memory_gb() / asked.nodes if divided else None
    return asked.cpus_per_node or cpus, 0 if divided else asked.gpus_per_node, asked.mem_gb or mem_gb


def _on_slurm(cluster: Cluster) -> tuple[int, int, float] | None:
    """Of whole nodes, what the smallest of the partition has: any of them may be ours."""
    asked = cluster.ray
    there = site.ask_nodes() if shutil.which("sinfo") else []
    there = [one for one in there if one.serves(cluster.slurm.partition)]
    cpus = asked.cpus_per_node or min((one.cpus for one in there), default=0)
    mem_gb = asked.mem_gb or min((one.memory_gb for one in there), default=0.0)
    return (cpus, asked.gpus_per_node or 0, mem_gb) if cpus and mem_gb else None
