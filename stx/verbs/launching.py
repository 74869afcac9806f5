"""The launcher that a cluster file names: class NameLauncher of jobs/launchers/name."""

from collections.abc import Callable

from jobs.launcher import Launcher
from jobs.spec import Resources
from stx import named
from stx.config.cluster import Cluster
from stx.coordinator.attempts import ask


def launcher_of(cluster: Cluster) -> Launcher:
    """A launcher for this cluster; the name was checked when the file was read."""
    module = named.load("jobs.launchers", cluster.launcher)
    launcher: Launcher = getattr(module, f"{cluster.launcher.capitalize()}Launcher")()
    return launcher


def refusal_of(cluster: Cluster) -> Callable[[Resources], str | None]:
    """Why a job of some size could never run there; BackendError where its scheduler does not answer."""
    launcher = launcher_of(cluster)
    return lambda size: ask(lambda: launcher.refusal(size))
