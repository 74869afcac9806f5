"""`stx cancel` and `stx retry`: a command for the running coordinator, or carried out here when nobody drives the
experiment.
"""

import contextlib
import shlex
import sys
from collections.abc import Sequence

from stx import sharing
from stx.coordinator import inbox, lease
from stx.coordinator.state import Status
from stx.coordinator.status import Observer
from stx.errors import ConfigError, LeaseHeld
from stx.paths import Store
from stx.report.words import plural
from stx.verbs import console
from stx.verbs.select import Chosen, choose, existing_store


def run(verb: inbox.Verb, pattern: str, *, store: str | None, cluster: str | None, take_over: bool = False) -> None:
    """Cancel or retry what a pattern names, in every experiment that has it."""
    place = existing_store(store)
    for one in _ours(place, choose(place, pattern), verb=verb):
        open_nodes, done = _open(place, one)
        rest = f"{plural(done, 'stage')} already done"
        if not open_nodes:
            console.say(f"nothing to {verb} in {one.experiment}: {rest}")
            continue
        command = inbox.Command(verb=verb, keys=tuple(open_nodes), take_over=take_over)
        given = _give(place, one, command=command, cluster=cluster)
        names = list(open_nodes.values())
        words = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        more = f"; {rest}" if done else ""
        console.say(f"{given}: {verb} {plural(len(names), 'stage')} of {one.experiment} ({words}){more}")
    then = "starts what was retried" if verb == "retry" else "takes it up again"
    console.next_commands(f"stx status {shlex.quote(pattern)}", f"stx submit FILE   (the same file: {then})")


def _ours(store: Store, chosen: Sequence[Chosen], *, verb: str) -> list[Chosen]:
    """The experiments that are this user's; ConfigError if there are none among them."""
    holders = {one.experiment: sharing.holder(store.experiment(one.experiment)) for one in chosen}
    ours = [one for one in chosen if not holders[one.experiment]]
    for name, user in holders.items():
        if user and ours:
            console.say(f"{name} is {user}'s: nothing to {verb} there")
    if not ours:
        theirs = ", ".join(f"{name} is {user}'s" for name, user in holders.items())
        what = f"{verb} is for the user whose experiment it is: {theirs}"
        raise ConfigError(
            what, where=str(store.root), hint="stx status shows it; your own experiments share its stages"
        )
    return ours


def _open(store: Store, chosen: Chosen) -> tuple[dict[str, str], int]:
    """The stages that are not done, names by key, and how many are."""
    observer = Observer(store, experiment=store.experiment(chosen.experiment), graph=chosen.graph)
    lines = observer.look(keys=[node.key for node in chosen.nodes]).lines
    found = {line.key: line.name for line in lines if line.state != Status.DONE}
    return found, len(lines) - len(found)


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
                code, launcher = snapshot.snapshot(store), launcher_of(where, store)
                loop.command(store, one.graph, where, launcher, command, code=code, python=sys.executable)
                return "done"
        inbox.put(experiment, command)
    return "asked the coordinator"
