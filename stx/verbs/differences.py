"""What an edited experiment file changes against the graph that was submitted last under its name. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from stx import plan
from stx.spec import Graph, Node

SHOWN = 20


@dataclass(frozen=True)
class Difference:
    """One stage that was added, removed or changed, and how."""

    name: str
    change: str
    details: tuple[str, ...] = ()


def between(old: Graph | None, new: Graph) -> list[Difference]:
    """Differences that matter to a coordinator: stages, keys, wanted results, where-options, the report. Costs are not
    among them.
    """
    if old is None:
        return []
    before, after = ({node.name: node for node in graph.nodes} for graph in (old, new))
    found = [Difference(name, "added") for name in after if name not in before]
    found += [Difference(name, "removed") for name in before if name not in after]
    for name in after:
        if name in before and _identity(before[name]) != _identity(after[name]):
            found.append(Difference(name, "changed", _details(before[name], after[name])))
    if dict(old.report) != dict(new.report):
        found.append(Difference("report", "changed"))
    return found


def _identity(node: Node) -> tuple[object, ...]:
    return node.key, node.wants, dict(node.where)


def _details(old: Node, new: Node) -> tuple[str, ...]:
    details = list(plan.changes(old, new)) if old.key != new.key else []
    if old.wants != new.wants:
        details.append(f"images seen {_counts(old)} -> {_counts(new)}")
    where = {**old.where, **new.where}
    details += [f"{name} (not in the key)" for name in where if old.where.get(name) != new.where.get(name)]
    return tuple(details)


def _counts(node: Node) -> str:
    return "/".join(f"{images:,}" for images in node.wants) or "none"


def words(experiment: str, changed: Sequence[Difference]) -> str:
    """For people."""
    lines = [f"{experiment} differs from what was submitted:"]
    lines += [
        f"  {one.change} {one.name}" + (f": {', '.join(one.details)}" if one.details else "") for one in changed[:SHOWN]
    ]
    if len(changed) > SHOWN:
        lines.append(f"  and {len(changed) - SHOWN:,} more")
    lines.append("finished stages stay where they are: what is still wanted stays cached, nothing is deleted")
    return "\n".join(lines)
