"""The shortened quickstart on a real Ray, wherever that runs, has the payloads of a local run."""

import pytest

from tests.integration.conftest import SHORTENED
from tests.integration.ray.conftest import of_home
from tests.slurm_cluster import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def test_on_a_cluster_of_four_cpus_that_stx_starts_and_ends(stx, short):
    stx.env |= {"HOME": str(stx.folder), "STX_CORES": "4"}
    stx.run("submit", *SHORTENED, "--cluster", "ray", limit=1400)
    assert stx.digests() == short.digests()
    assert set(stx.attempts().values()) == {1}
    wait_for(lambda: not of_home(stx.folder), limit=60, seen=lambda: of_home(stx.folder))
    assert "OVER" in stx.run("ray", "status", "--cluster", "ray").stdout


@pytest.mark.full
def test_on_two_nodes_of_a_cluster_that_was_there(ray, short):
    ray.stx.run("submit", *SHORTENED, "--cluster", str(ray.file), limit=1400)
    assert ray.stx.digests() == short.digests()


@pytest.mark.full
def test_on_two_nodes_of_an_allocation(devcluster, stx, short):
    devcluster.clean()
    stx.env |= {"HOME": str(stx.folder), "SLURM_CONF": str(devcluster.conf)}
    stx.run("submit", *SHORTENED, "--cluster", "ray-on-slurm", "--foreground", limit=1400)
    assert stx.digests() == short.digests()
    wait_for(lambda: not devcluster.command("squeue", "-h").strip(), limit=60)
    wait_for(lambda: not of_home(stx.folder), limit=60, seen=lambda: of_home(stx.folder))
