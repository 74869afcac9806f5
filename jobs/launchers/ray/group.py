"""A job as Ray has it: its placement group, and which of its actors live. What the driver tells the launcher."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jobs.launchers.ray import names
from jobs.launchers.ray.nodes import Node
from jobs.spec import Cause

WAITING = frozenset({"PENDING", "PREPARED"})
REMOVED = "REMOVED"


@dataclass(frozen=True)
class Failure:
    """Why an actor of a job, or its supervisor, could not begin, in words and as a `cause`."""

    tag: str
    words: str
    cause: Cause


@dataclass(frozen=True)
class Group:
    """`number` is Ray's of the placement group, `state` its word for it; `nodes` where the bundles are, by name; `live`
    the ranks whose actors wait or live; `failed` why an actor could not begin, and whose fault that is: `cause`.
    """

    number: str
    tag: str
    state: str
    nodes: tuple[str, ...]
    live: tuple[int, ...]
    failed: str = ""
    cause: Cause | None = None

    @property
    def waits(self) -> bool:
        """Whether it has no place yet."""
        return self.state in WAITING

    @property
    def is_gone(self) -> bool:
        """Whether only its failure is left of it."""
        return self.state == REMOVED


def of(
    row: Mapping[str, Any], *, live: Iterable[int], nodes: Iterable[Node], failed: Mapping[str, Failure]
) -> Group | None:
    """Out of what `placement_group_table` has of it; None if it is gone. `failed`: by the number of the group."""
    if row.get("state", REMOVED) == REMOVED:
        return None
    called = {node.number: node.name for node in nodes}
    number = row["placement_group_id"]
    failure = failed.get(number)
    return Group(
        number=number,
        tag=row["name"],
        state=row["state"],
        nodes=tuple(called[node] for _, node in sorted(row["bundles_to_node_id"].items()) if node in called),
        live=tuple(sorted(live)),
        failed=failure.words if failure else "",
        cause=failure.cause if failure else None,
    )


def gone(number: str, failure: Failure) -> Group:
    """What is left of one that failed and was removed."""
    return Group(number, failure.tag, REMOVED, nodes=(), live=(), failed=failure.words, cause=failure.cause)


def live(actors: Iterable[str]) -> dict[str, list[int]]:
    """The ranks by tag, out of the names of all actors that wait or live."""
    found: dict[str, list[int]] = defaultdict(list)
    for tag, rank in filter(None, map(names.rank_of, actors)):
        found[tag].append(rank)
    return found
