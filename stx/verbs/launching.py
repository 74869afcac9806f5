"""The launcher that a cluster file names: class NameLauncher of jobs/launchers/name."""

from collections.abc import Callable
from importlib.util import find_spec

from jobs.launcher import Launcher
from jobs.spec import Resources
from stx import named
from stx.config.cluster import Cluster
from stx.coordinator.attempts import ask
from stx.errors import ConfigError

NEEDED = {"slurm": "submitit"}  # extras of ours, by launcher


def launcher_of(cluster: Cluster) -> Launcher:
    """A launcher for this cluster; the name was checked when the file was read."""
    module = named.load("jobs.launchers", cluster.launcher)
    launcher: Launcher = getattr(module, f"{cluster.launcher.capitalize()}Launcher")()
    return launcher


def refusal_of(cluster: Cluster) -> Callable[[Resources], str | None]:
    """Why a job of some size could never run there; BackendError where its scheduler does not answer."""
    launcher = launcher_of(cluster)
    return lambda size: ask(lambda: launcher.refusal(size))


def missing(cluster: Cluster) -> str:
    """The package that the launcher needs and that is not installed, or nothing."""
    name = NEEDED.get(cluster.launcher, "")
    return name if name and find_spec(name) is None else ""


def installed(cluster: Cluster) -> None:
    """ConfigError where the launcher cannot even write a request."""
    if name := missing(cluster):
        where = f"cluster {cluster.name}: launcher: {cluster.launcher}"
        raise ConfigError(f"{name} is not installed here", where=where, hint=f"pip install {name}")
