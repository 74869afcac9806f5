"""The list of bad nodes in a store, for `stx doctor`."""

import time
from collections.abc import Iterator

from stx.config.cluster import Cluster
from stx.coordinator import nodes, store_clock
from stx.coordinator.nodes import Evidence
from stx.errors import ConfigError
from stx.paths import Store
from stx.report.words import plural
from stx.verbs.check import Check, good, warn


def bad_nodes(place: Store, cluster: Cluster) -> Iterator[Check]:
    """Every node that something speaks against, of every cluster that uses the store."""
    if not place.root.is_dir():
        return
    pieces = nodes.found(place)
    held = nodes.valid(pieces, now=store_clock.now(place)[0]) if pieces else {}
    for (where, node), against in held.items():
        words = f"{node} of {where}: {told(against, after=cluster.bad_nodes.after)}"
        yield warn("bad node", words, f"when it is mended: stx doctor --store {place.root} --forget-node {node}")
    if not held and cluster.launcher == "slurm":
        yield good("bad nodes", "none in this store")


def told(against: list[Evidence], *, after: int) -> str:
    """How often it failed, when it counts no more, and the last time's words."""
    last = against[0]
    # The last `after` pieces must all count: it is free when the first of these is too old.
    until = sorted((one.expires for one in against), reverse=True)[after - 1 : after]
    what = f"avoided until {moment(until[0])}" if until else f"avoided after {after} of them"
    lines = last.message.strip().splitlines() or [""]
    return (
        f"{plural(len(against), 'attempt')} failed for it, {what}; the last {moment(last.time)}: "
        f"{last.attempt} of {last.experiment}: {lines[-1]}"
    )


def moment(seconds: float) -> str:
    """The store's time, as people write it."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def forget(place: Store, node: str) -> str:
    """Take a node off the list; what happened, in words."""
    count = nodes.forget(place, node) if place.nodes.is_dir() else 0
    if not count:
        known = sorted({one.node for one in nodes.found(place)}) if place.root.is_dir() else []
        hint = f"there was something against {', '.join(known)}" if known else "stx doctor lists them"
        raise ConfigError("nothing in this store speaks against it", where=f"--forget-node {node}", hint=hint)
    return f"{node} may be used again: {plural(count, 'attempt')} that failed for it no longer {_count(count)}"


def _count(number: int) -> str:
    return "counts" if number == 1 else "count"
