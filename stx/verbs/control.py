"""`stx cancel` and `stx retry`: a command for the running coordinator, or carried out here when nobody drives the
experiment.
"""

import contextlib
import sys

from stx.coordinator import inbox, lease
from stx.errors import LeaseHeld
from stx.paths import Store
from stx.report.words import plural
from stx.verbs import console
from stx.verbs.select import Chosen, choose, existing_store


def run(verb: inbox.Verb, pattern: str, *, store: str | None, cluster: str | None, take_over: bool = False) -> None:
    """Cancel or retry what a pattern names, in every experiment that has it."""
    place = existing_store(store)
    for one in choose(place, pattern):
        keys = tuple(dict.fromkeys(node.key for node in one.nodes))
        command = inbox.Command(verb=verb, keys=keys, take_over=take_over)
        done = _give(place, one, command=command, cluster=cluster)
        words = ", ".join(node.name for node in one.nodes[:8]) + (", ..." if len(one.nodes) > 8 else "")
        console.say(f"{done}: {verb} {plural(len(keys), 'stage')} of {one.experiment} ({words})")
    submit = ["stx submit FILE   (the same file: starts what was retried)"] if verb == "retry" else []
    console.next_commands(f"stx status {pattern}", *submit)


def _give(store: Store, one: Chosen, *, command: inbox.Command, cluster: str | None) -> str:
    from stx.config.cluster import load_cluster
    from stx.coordinator import loop, snapshot
    from stx.coordinator.prepare import writing
    from stx.verbs.launching import launcher_of

    experiment = store.experiment(one.experiment)
    where = load_cluster(cluster)
    with writing(store.root):
        if lease.holder(experiment) is None:
            with contextlib.suppress(LeaseHeld):
                code, launcher = snapshot.snapshot(store), launcher_of(where)
                loop.command(store, one.graph, where, launcher, command, code=code, python=sys.executable)
                return "done"
        inbox.put(experiment, command)
    return "asked the coordinator"
