"""`stx doctor`: is this machine, and is this store, fit for what the cluster file asks? Every line says ok, warn or
FAIL, and what to do; exit code 2 where something FAILs. It changes nothing.
"""

import shlex
import sys
from collections.abc import Iterator, Sequence

from stx.config.cluster import Cluster, load_cluster
from stx.paths import Store
from stx.verbs import console, machine_checks, store_checks
from stx.verbs.check import Check, Level, guarded
from stx.verbs.select import store_root

STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}
NAME_WIDTH = 15


def run(*, cluster: str | None, store: str | None, as_json: bool) -> int:
    """The verb; its exit code."""
    where = load_cluster(cluster)
    place = Store(store_root(store, cluster_store=where.store))
    found = []
    for check in findings(where, place):
        found.append(check)
        if not as_json:
            console.out(line(check))
            sys.stdout.flush()  # some checks take seconds
    failed = sum(check.level is Level.FAIL for check in found)
    if as_json:
        console.out_json({"cluster": where.name, "store": str(place.root), "checks": [one.dump() for one in found]})
    else:
        console.say(summary(found))
        if not failed:
            there = f" --cluster {shlex.quote(cluster)}" if cluster else ""
            remark = "   (two steps of everything first)"
            console.next_commands(f"stx plan FILE{there}", f"stx submit FILE --smoke{there}{remark}")
    return 2 if failed else 0


def findings(cluster: Cluster, place: Store) -> Iterator[Check]:
    """All checks, the quick ones of a group first."""
    yield from guarded("machine", lambda: machine_checks.machine(cluster))
    yield from guarded("store", lambda: store_checks.store(place))


def line(check: Check) -> str:
    """For people: the word, what was looked at, what was seen; what to do in a line of its own."""
    word = console.styled(f"{check.level.value:<5}", STYLES[check.level], stream=sys.stdout)
    told = f"{word} {check.name:<{NAME_WIDTH}} {check.words}"
    return f"{told}\n{' ' * 6}{check.hint}" if check.hint else told


def summary(found: Sequence[Check]) -> str:
    """12 ok, 1 warn, 0 FAIL."""
    return ", ".join(f"{sum(check.level is level for check in found)} {level.value}" for level in Level)
