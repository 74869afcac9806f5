"""Nodes that fail under stx on a real Slurm: killed, with too few cores, without the store. The experiment ends well on
another node, and the list of bad nodes says why.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stx.config.cluster import load_cluster
from stx.paths import Store
from stx.verbs import node_checks
from tests.slurm_cluster import wait_for

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.sampled(seconds=40)]

CLUSTER = """\
launcher: slurm
store: {folder}/store
poll_s: 0.5
backoff_s: [0]
stop_lead_s: 5
stages:
  default: {{cpus_per_rank: {cores}, mem_gb: 0.2, time: 10m}}
slurm: {{partition: low, python: {folder}/python}}
"""
# The program of the first attempt waits for what the test does to its node.
EXPERIMENT = """\
name: nodes
stages:
  work:
    kind: command
    version: "1"
    argv: [sh, -c, "echo done > $STX_OUTPUT/word; mkdir {folder}/was-here || exit 0; sleep {first_s}"]
"""


class Site:
    """An experiment of one stage on the cluster. `bad_start`: how the first job's Python is started."""

    def __init__(self, devcluster, folder: Path) -> None:
        self.devcluster = devcluster
        self.folder = folder
        self.store = Store(folder / "store")

    def submit(self, *, first_s: int = 0, cores: int = 1, bad_start: str = "exec") -> subprocess.Popen[str]:
        (self.folder / "cluster.yaml").write_text(CLUSTER.format(folder=self.folder, cores=cores))
        (self.folder / "nodes.yaml").write_text(EXPERIMENT.format(folder=self.folder, first_s=first_s))
        python = self.folder / "python"
        python.write_text(
            f"#!/bin/sh\nmkdir {self.folder}/started 2>/dev/null && {bad_start} {sys.executable} \"$@\"\n"
            f"exec {sys.executable} \"$@\"\n"
        )  # fmt: skip
        python.chmod(0o755)
        argv = [sys.executable, "-m", "stx.cli", "submit", "nodes.yaml", "--cluster", "cluster.yaml", "--foreground"]
        env = {**self.devcluster.env, "PYTHONPATH": str(ROOT)}
        with (self.folder / "out").open("w") as out:
            return subprocess.Popen(argv, cwd=self.folder, env=env, stdout=out, stderr=subprocess.STDOUT, text=True)

    def record(self, name: str) -> dict:
        found = list(self.store.stages.glob(f"*/attempts/{name}"))
        return json.loads(found[0].read_bytes()) if found else {}

    def check_moved_on(self, node: str) -> str:
        """The second attempt ran elsewhere because it was told to, and doctor says why; in its words."""
        assert self.record("002/started.json")["nodes"] != node
        (request,) = self.store.stages.glob("*/attempts/002/request.txt")
        assert f"#SBATCH --exclude={node}\n" in request.read_text()
        assert len(list(self.store.stages.glob("*/artifact.json"))) == 1
        assert not list(self.store.stages.glob("*/attempts/003.intent.json"))
        (check,) = node_checks.bad_nodes(self.store, load_cluster(self.folder / "cluster.yaml"))
        assert check.words.startswith(f"{node} of slurm:stxdev@") and "1 attempt failed for it" in check.words
        return check.words


@pytest.fixture
def site(devcluster, tmp_path):
    yield Site(devcluster, tmp_path)
    devcluster.clean()


def ended(process: subprocess.Popen[str], site: Site) -> None:
    assert process.wait(timeout=200) == 0, (site.folder / "out").read_text()


def test_a_stage_whose_node_is_killed_goes_on_elsewhere(site, devcluster):
    process = site.submit(first_s=600)
    wait_for((site.folder / "was-here").exists, limit=60)
    node = site.record("001/started.json")["nodes"]
    devcluster.node("down", node)
    try:
        ended(process, site)
        assert "NODE_FAIL" in site.check_moved_on(node)
        assert site.record("001/verdict.json")["cause"] == "NODE"
    finally:
        devcluster.node("up", node)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a node of one core has no core less")
def test_a_node_that_gives_fewer_cores_than_asked_for_is_left_before_anything_runs(site):
    ended(site.submit(cores=2, bad_start="exec taskset --cpu-list 0"), site)
    node = site.record("001/started.json")["nodes"]
    said = site.record("001/outcome-0.json")
    assert (said["cause"], said["info"]["node"]) == ("NODE", node)
    assert said["message"] == f"{node}: 1 ranks x 2 cores = 2 were asked for, and this node gives 1"
    assert "this node gives 1" in site.check_moved_on(node)
    assert not list(site.store.stages.glob("*/attempts/001/rank-0.log"))


@pytest.mark.full
@pytest.mark.skipif(os.geteuid() != 0, reason="hiding a folder from a process takes root")
def test_a_node_that_does_not_see_the_store_is_left_although_it_can_write_no_word(site):
    hidden = f"exec unshare --mount sh -c 'mount -t tmpfs none {site.store.root} && exec \"$@\"' sh"
    began = time.monotonic()
    process = site.submit(bad_start=hidden)
    ended(process, site)
    assert site.record("001/verdict.json")["cause"] == "NODE"
    node = Path(next(site.store.nodes.glob("*.json"))).name.partition("-stx-")[0]
    assert "is FAILED on" in site.check_moved_on(node)
    assert time.monotonic() - began < 120
