"""The launcher that a cluster file names: class NameLauncher of jobs/launchers/name.py."""

from jobs.launcher import Launcher
from stx import named
from stx.config.cluster import Cluster


def launcher_of(cluster: Cluster) -> Launcher:
    """A launcher for this cluster; the name was checked when the file was read."""
    module = named.load("jobs.launchers", cluster.launcher)
    launcher: Launcher = getattr(module, f"{cluster.launcher.capitalize()}Launcher")()
    return launcher
