"""What a Ray cluster is made of, as `ray.nodes()` has it, and what fits there. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.spec import Resources

NAMED_AT_MOST = 5


@dataclass(frozen=True)
class Node:
    """A node that is up, with all that its Ray may give away. `number` is Ray's own name for it."""

    name: str
    number: str
    cpus: float
    gpus: float
    memory_gb: float

    def holds(self, size: Resources) -> bool:
        """Whether it could take one node of such a job, were it empty."""
        cpus, gpus = per_node(size)
        return self.cpus >= cpus and self.gpus >= gpus and self.memory_gb >= size.mem_gb

    @property
    def words(self) -> str:
        """What it has."""
        return f"{self.cpus:g} CPUs, {self.gpus:g} GPUs, {self.memory_gb:.1f} GB"


def per_node(size: Resources) -> tuple[int, int]:
    """The CPUs and GPUs that a job takes on each of its nodes."""
    return size.ranks_per_node * size.cpus_per_rank, size.ranks_per_node * size.gpus_per_rank


def parse(records: Iterable[Mapping[str, Any]]) -> list[Node]:
    """The living ones, by name."""
    return sorted((_node(record) for record in records if record["Alive"]), key=lambda node: node.name)


def _node(record: Mapping[str, Any]) -> Node:
    """Its name is what its owner called it; Ray calls nodes by their address, several of one machine alike."""
    has, host = record["Resources"], record["NodeManagerHostname"]
    called = record.get("NodeName") or host
    return Node(
        name=host if called == record["NodeManagerAddress"] else called,
        number=record["NodeID"],
        cpus=has.get("CPU", 0.0),
        gpus=has.get("GPU", 0.0),
        memory_gb=has.get("memory", 0.0) / 2**30,
    )


def refusal(nodes: Sequence[Node], size: Resources) -> str | None:
    """Why no job of this size could ever run on these nodes, with what they have."""
    if not nodes:
        return "this Ray cluster has no node"
    cpus, gpus = per_node(size)
    for what, wanted, most in (
        ("CPUs", cpus, max(node.cpus for node in nodes)),
        ("GPUs", gpus, max(node.gpus for node in nodes)),
        ("GB of memory", size.mem_gb, max(node.memory_gb for node in nodes)),
    ):
        if wanted > most:
            return f"a node of this job takes {wanted:g} {what}; {described(nodes)}"
    if size.nodes > (count := sum(node.holds(size) for node in nodes)):
        return f"{size.nodes} nodes of this size are wanted, and {count} would do; {described(nodes)}"
    return None


def described(nodes: Sequence[Node]) -> str:
    """All nodes in a line, those that are alike together."""
    alike = Counter(node.words for node in nodes).most_common()
    shown = [f"{count} x {words}" if count > 1 else words for words, count in alike[:NAMED_AT_MOST]]
    more = ["others"] if len(alike) > NAMED_AT_MOST else []
    return f"this Ray cluster has {'; '.join([*shown, *more])}"
