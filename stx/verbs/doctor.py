"""`stx doctor`: is this machine, and is this store, fit for what the cluster file asks? Every line says ok, warn or
FAIL, and what to do; exit code 2 where something FAILs. It changes nothing, but for a bad node that it is to forget.
"""

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence

from jobs.launcher import Refused
from jobs.launchers.ray.nodes import described
from jobs.launchers.slurm.commands import SlurmError
from stx.config.cluster import Cluster, load_cluster
from stx.config.yaml import flow
from stx.errors import ConfigError, install
from stx.paths import Store
from stx.verbs import console, expected, machine_checks, node_checks, site_checks, store_checks
from stx.verbs.check import Check, Level, fail, good, guarded
from stx.verbs.launching import missing, on_ray
from stx.verbs.select import store_root
from stx.verbs.site_probe import Probe

STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}
NAME_WIDTH = 15


def run(*, cluster: str | None, store: str | None, as_json: bool, probe: bool = True, forget: str | None = None) -> int:
    """The verb; its exit code. `probe`: a job on a compute node, too. `forget`: no check, but that node taken off the
    store's list of bad ones.
    """
    where = load_cluster(cluster)
    if not probe and where.launcher != "slurm":
        hint = "only a Slurm cluster has compute nodes to send a probe to"
        raise ConfigError(f"has no effect with launcher: {where.launcher}", where="--no-probe", hint=hint)
    place = Store(store_root(store, cluster_store=where.store))
    if forget is not None:
        console.say(node_checks.forget(place, forget))
        return 0
    found = []
    for check in findings(where, place, probe=probe):
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


def findings(cluster: Cluster, place: Store, *, probe: bool = True) -> Iterator[Check]:
    """All checks, the quick ones of a group first."""
    yield from guarded("machine", lambda: machine_checks.machine(cluster))
    yield from guarded("store", lambda: store_checks.store(place))
    yield from guarded("bad nodes", lambda: node_checks.bad_nodes(place, cluster))
    if cluster.launcher == "slurm":
        yield from guarded("slurm", lambda: slurm(cluster, place, probe=probe))
    if cluster.launcher == "ray":
        yield from guarded("ray", lambda: ray(cluster, place))


def ray(cluster: Cluster, place: Store) -> Iterator[Check]:
    """What the Ray cluster has, and whether the jobs fit there; of one of our own, what it will have."""
    if name := missing(cluster):
        yield fail("ray", f"{name} is not installed: nothing can be submitted from here", install("ray"))
        return
    launcher = on_ray(cluster, place)
    try:
        there = launcher.described() if cluster.ray.address else ours(cluster)
        yield good("ray", there)
        yield from machine_checks.sizes(cluster, launcher, there=there)
    except Refused as error:
        yield fail(
            "ray", str(error), "is it up, is this machine one of its nodes (else ray.via), and is ray.token its?"
        )
    finally:
        launcher.close()


def ours(cluster: Cluster) -> str:
    """What a cluster of our own will be like, in words."""
    nodes = expected.nodes_of(cluster)
    where = "one Slurm allocation" if cluster.ray.where == "slurm" else "this machine"
    return f"of our own, in {where}: {described(nodes) if nodes else 'its nodes are not known from here'}"


def slurm(cluster: Cluster, place: Store, *, probe: bool) -> Iterator[Check]:
    """What the site will do with our jobs; what a compute node sees; where the coordinator might live."""
    if name := missing(cluster):
        yield fail("submitit", f"{name} is not installed: nothing can be submitted from here", install("slurm"))
    job = Probe(cluster, place)
    try:
        here = site_checks.read()
        yield from site_checks.findings(here, cluster)
        if probe:
            yield from job.run()
    except SlurmError as error:
        yield fail("slurm", str(error), "run it where sbatch works: on a login node, with the site's modules loaded")
        return
    proposed, why = site_checks.proposal(here, submits=job.submits, crontab=shutil.which("crontab") is not None)
    yield home(cluster, proposed, why)


def home(cluster: Cluster, proposed: Mapping[str, object], why: str) -> Check:
    """The proposal, beside what the cluster file says."""
    words = flow(proposed)
    if cluster.coordinator.where == proposed["where"]:
        return good("coordinator", f"{words}, as this file has it: {why}")
    return good(
        "coordinator", f"this file says {cluster.coordinator.where}; for this site: coordinator: {words} ({why})"
    )


def line(check: Check) -> str:
    """For people: the word, what was looked at, what was seen; what to do in a line of its own."""
    word = console.styled(f"{check.level.value:<5}", STYLES[check.level], stream=sys.stdout)
    told = f"{word} {check.name:<{NAME_WIDTH}} {check.words}"
    return f"{told}\n{' ' * 6}{check.hint}" if check.hint else told


def summary(found: Sequence[Check]) -> str:
    """12 ok, 1 warn, 0 FAIL."""
    return ", ".join(f"{sum(check.level is level for check in found)} {level.value}" for level in Level)
