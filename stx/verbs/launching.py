"""The launcher that a cluster file names: class NameLauncher of jobs/launchers/name; and its helper jobs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jobs.helper import Helpers
from jobs.launcher import Launcher
from jobs.launchers.ray import NoCluster, RayLauncher
from jobs.launchers.ray.line import Where
from jobs.launchers.ray.nodes import Node
from jobs.launchers.ray.up import folder as folders
from jobs.launchers.ray.up import record
from jobs.launchers.ray.up.folder import Asked
from jobs.spec import Resources
from stx import named
from stx.config.cluster import Cluster
from stx.coordinator.attempts import ask
from stx.errors import ConfigError, install
from stx.paths import Store
from stx.verbs import expected

NEEDED = {"slurm": "submitit", "ray": "ray"}  # extras of ours, by launcher

JOB_S, LINK_S = 7 * 86400.0, 1800.0
HELPER_GB = 2.0


def launcher_of(cluster: Cluster, store: Store, *, experiment: str = "") -> Launcher:
    """A launcher for this cluster; the name was checked when the file was read. Of a Ray cluster of our own, the store
    tells which one is up. `experiment`: for which, where a scheduler shows that.
    """
    if cluster.launcher == "ray":
        return on_ray(cluster, store, experiment=experiment)
    module = named.load("jobs.launchers", cluster.launcher)
    launcher: Launcher = getattr(module, f"{cluster.launcher.capitalize()}Launcher")()
    return launcher


def on_ray(cluster: Cluster, store: Store, *, experiment: str = "") -> RayLauncher:
    """On an existing cluster, whose address was checked when the file was read, or on whichever of ours is up."""
    asked = cluster.ray
    about = {"experiment": experiment, "store": str(store.root)} if experiment else {}
    if asked.address is not None:
        where = Where(asked.address, token=asked.token or "", via=tuple(asked.via))
        return RayLauncher(where.address, lambda: where, about=about)
    name = expected.called(cluster)
    path, clusters = store.ray(name), store.ray_clusters(name)

    def nodes() -> list[Node]:
        up = folders.load(Asked, folders.newest(clusters)[1].asked) if record.read(path) is not None else None
        return expected.nodes_of(cluster, up=up)

    return RayLauncher(str(path), lambda: _ours(path), expected=nodes, about=about)


def _ours(path: Path) -> Where:
    """The one that is up."""
    found = record.read(path)
    if found is None:
        raise NoCluster("no Ray cluster of ours is up; stx ray up, or a coordinator that stays, brings one up")
    return Where(found.address, token=found.token, via=found.via)


def refusal_of(cluster: Cluster, store: Store) -> Callable[[Resources], str | None]:
    """Why a job of some size could never run there; BackendError where its scheduler does not answer."""
    launcher = launcher_of(cluster, store)
    return lambda size: ask(lambda: launcher.refusal(size))


def missing(cluster: Cluster) -> str:
    """The package that the launcher needs and that is not installed, or nothing."""
    name = NEEDED.get(cluster.launcher, "")
    return name if name and find_spec(name) is None else ""


def installed(cluster: Cluster) -> None:
    """ConfigError where the launcher cannot even write a request."""
    if name := missing(cluster):
        where = f"cluster {cluster.name}: launcher: {cluster.launcher}"
        raise ConfigError(f"{name} is not installed here", where=where, hint=install(cluster.launcher))


def helpers_of(cluster: Cluster) -> Helpers:
    """Its helper jobs; only Slurm has them, which was checked when the file was read."""
    module = named.load(f"jobs.launchers.{cluster.launcher}", "helpers")
    helpers: Helpers = getattr(module, f"{cluster.launcher.capitalize()}Helpers")()
    return helpers


@dataclass(frozen=True)
class HelperSize:
    """What the coordinator's job asks for."""

    mem_gb: float
    time_s: float
    scheduler: Mapping[str, Any]


def helper_size(cluster: Cluster) -> HelperSize:
    """As the cluster file says, else what is enough, and no longer than its partition allows."""
    asked = cluster.coordinator
    scheduler, time_s = asked.asked(cluster.slurm), asked.time
    if time_s is None:
        longest = ask(lambda: helpers_of(cluster).longest_s(scheduler["partition"]))
        enough = LINK_S if asked.where == "chain" else JOB_S
        time_s = enough if longest is None else min(enough, longest)
    return HelperSize(asked.mem_gb or HELPER_GB, time_s, scheduler)
