"""`stx ray up | status | down`: the Ray cluster of a cluster file, brought up, looked at, and ended."""

import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from stx import sharing
from stx.config import schema
from stx.config.cluster import Cluster, load_cluster
from stx.config.ray import Ray
from stx.coordinator import snapshot
from stx.coordinator.prepare import check_store, writing
from stx.errors import BackendError, ConfigError, install
from stx.paths import Store
from stx.report.words import plural
from stx.verbs import console, expected
from stx.verbs.launching import installed
from stx.verbs.own_ray import Look, OwnRay, Standing
from stx.verbs.select import store_root

LOOK_S = 1.0
END_S = 60.0  # for what comes after the jobs have saved


def up(*, cluster: str | None, store: str | None, nodes: int | None, time_limit: str | None, wait: bool) -> None:
    """The verb `ray up`."""
    where, place, own = own_of(cluster, store, nodes=nodes, time=time_limit)
    installed(where)
    _submits(where)
    check_store(place)
    look = own.look()
    if look.standing.lives:
        console.say(f"one is there already ({look.standing}): none is added")
    else:
        with writing(place.root):
            code = snapshot.snapshot(place)
        look = own.up(look.number, code=code.path)
    if wait:
        look = _wait(own, look)
    console.out(describe(where, look))
    flag = f" --cluster {cluster}" if cluster else ""
    console.next_commands(f"stx ray status{flag}", f"stx dashboard{flag}", f"stx ray down{flag}")


def _submits(where: Cluster) -> None:
    """ConfigError where an allocation cannot even be asked for."""
    if where.ray.where == "slurm" and find_spec("submitit") is None:
        raise ConfigError("submitit is not installed here", where=where.line("ray", "where"), hint=install("slurm"))


def _wait(own: OwnRay, look: Look) -> Look:
    """Until it is up, with what it waits for; Ctrl-C leaves it to itself."""
    shown = ""
    while look.standing is not Standing.UP:
        if not look.standing.lives or look.standing is Standing.LEAVES:
            hint = f"all that was said is in {look.folder.path}" if look.folder else None
            raise BackendError(f"the Ray cluster did not come up: {look.words}", hint=hint)
        if look.words != shown:
            console.say(look.words)
            shown = look.words
        time.sleep(LOOK_S)
        look = own.look()
    return look


def status(*, cluster: str | None, store: str | None, as_json: bool) -> None:
    """The verb `ray status`."""
    where, _, own = own_of(cluster, store)
    look = own.look()
    if as_json:
        console.out_json(_json(where, look))
        return
    console.out(describe(where, look))


def down(*, cluster: str | None, store: str | None) -> None:
    """The verb `ray down`: jobs save and yield, then it ends."""
    where, _, own = own_of(cluster, store)
    look = own.look()
    if not look.standing.lives:
        console.say(f"no Ray cluster of {where.name} is up")
        return
    console.say(f"asking it to end: jobs save and yield, for at most {where.stop_lead_s:g} s")
    own.end(look, "stx ray down")
    limit = time.monotonic() + 2 * where.stop_lead_s + END_S
    while (look := own.look()).standing.lives:
        if time.monotonic() > limit:
            own.cancel(look)
            raise BackendError("it did not end in time, and was told to end now", hint="stx ray status")
        time.sleep(LOOK_S)
    console.say(f"the Ray cluster of {where.name} is down")


def describe(where: Cluster, look: Look) -> str:
    """For people: the state, where it answers, and every node."""
    job = f", job {look.job_id}" if look.job_id else ""
    lines = [f"{where.name}: {look.standing}{job}" + (f": {look.words}" if look.words else "")]
    if look.record is not None:
        found = look.record
        lines += [
            f"  address    {found.address} ({plural(found.nodes, 'node')})",
            f"  dashboard  {found.dashboard} on its first node",
            f"  token      {found.token}",
        ]
        lines += [f"  tunnel     {found.tunnel}"] if found.tunnel else []
    if look.reports and look.standing is not Standing.OVER:
        rows = [(one.name, str(one.step), one.host, one.words.partition("\n")[0]) for one in look.reports]
        lines.append(console.table(("node", "state", "address", "why"), rows))
    return "\n".join(lines)


def _json(where: Cluster, look: Look) -> dict[str, Any]:
    return {
        "cluster": where.name,
        "state": str(look.standing),
        "why": look.words,
        "job_id": look.job_id or None,
        "folder": str(look.folder.path) if look.folder else None,
        "record": asdict(look.record) if look.record else None,
        "nodes": [asdict(report) for report in look.reports],
    }


def own_of(cluster: str | None, store: str | None, **typed: Any) -> tuple[Cluster, Store, OwnRay]:
    """The cluster file, which must be of a Ray cluster of ours, with what was `typed` in the place of its options; the
    store; and the cluster.
    """
    where = load_cluster(cluster)
    if where.launcher != "ray":
        hint = "say launcher: ray in the cluster file; docs/ray.md has one"
        what = f"its launcher is {where.launcher}: it has no Ray cluster"
        raise ConfigError(what, where=f"cluster {where.name}", hint=hint)
    if where.ray.address is not None:
        hint = "without ray.address, stx brings up one of its own"
        raise ConfigError("it names a cluster that somebody else keeps", where=where.line("ray", "address"), hint=hint)
    where = where.model_copy(update={"ray": _with(where.ray, typed)})
    place = Store(store_root(store, cluster_store=where.store))
    sharing.open_store(place)
    _refuse_others(where, place)
    return where, place, OwnRay(where, place)


def _refuse_others(where: Cluster, place: Store) -> None:
    """ConfigError where another user of the store has clusters of that name: nobody looks into them."""
    folder = place.ray_clusters(expected.called(where))
    if folder.is_dir() and (owner := folder.stat().st_uid) != os.geteuid():
        hint = "give this cluster file another `name:`"
        raise ConfigError(f"its Ray clusters are {sharing.user_name(owner)}'s", where=str(folder), hint=hint)


def _with(options: Ray, typed: Mapping[str, Any]) -> Ray:
    """The section with what was typed instead; ConfigError as for a file."""
    said = {name: value for name, value in typed.items() if value is not None}
    checked = schema.validate(Ray, options.model_dump(exclude_unset=True) | said)
    if isinstance(checked, Ray):
        return checked
    first = checked[0]
    raise ConfigError(first.what, where=f"--{first.path[0]} {said[str(first.path[0])]}", hint=first.hint)
