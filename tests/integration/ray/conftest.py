"""`stx submit --cluster ray.yaml` as a person types it, on a real Ray: two nodes of this machine."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs import processes
from jobs.launchers.ray import RayLauncher
from tests.integration.conftest import OnCluster, Stx
from tests.jobs.ray.conftest import jobs_of
from tests.ray_cluster import RayCluster
from tests.slurm_cluster import wait_for

CLUSTER = """\
launcher: ray
ray: {{address: "{address}", token: {token}}}
coordinator: {{where: foreground}}
poll_s: 0.2
lease_s: 20
stop_lead_s: 8
backoff_s: [0, 2]
checkpoint: {{every_s: 2, max_stall: 1}}
retries: {{lost: 30, node: 30}}
stages:
  default: {{mem_gb: 0.2, time: 20m}}
"""


@dataclass
class OnRay(OnCluster):
    """A store, a cluster file, and stx on a real Ray; without `cluster` and `launcher` on one that it starts."""

    cluster: RayCluster | None
    launcher: RayLauncher | None


def on_ray_of(stx: Stx, cluster: RayCluster) -> Iterator[OnRay]:
    """stx with a store of its own on this cluster, on which no job is left."""
    launcher = RayLauncher(cluster.address, lambda: cluster.where)
    made = OnRay(stx, cluster, launcher)
    made.file.write_text(CLUSTER.format(address=cluster.address, token=cluster.token))
    yield made
    wait_for(lambda: not jobs_of(launcher), limit=240)
    launcher.close()


@pytest.fixture
def ray(stx: Stx, raycluster: RayCluster) -> Iterator[OnRay]:
    yield from on_ray_of(stx, raycluster)


@pytest.fixture
def ray_with_latents(with_latents: Stx, raycluster: RayCluster) -> Iterator[OnRay]:
    """The same, with images, autoencoder and latents of the micro experiment finished."""
    yield from on_ray_of(with_latents, raycluster)


def of_home(home: Path) -> list[int]:
    """Processes that were told of this home, but for this one."""
    them = [one.pid for one in processes.every() if processes.variable(one.pid, "HOME") == str(home)]
    return [pid for pid in them if pid != os.getpid()]
