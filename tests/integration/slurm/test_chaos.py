"""tools/chaos on a real Slurm: preempted, on nodes that die, and broken in all the other ways, it loses nothing."""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.conftest import HERE, Stx
from tests.slurm_cluster import DevCluster

ROOT = Path(__file__).parents[3]
KEPT = "images,vae,latents"


def broken(devcluster: DevCluster, folder: Path, *, record_property, limit: int, **options: object) -> "Counter[str]":
    """Faults that happened, by kind, after all runs ended as they should."""
    seed = int(os.environ.get("STX_CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
    chaos = ROOT / "tools" / "chaos"
    command = [sys.executable, str(chaos), str(HERE / "tiny.yaml"), "--cluster", str(chaos / "impatient-slurm.yaml")]
    command += ["--devcluster", str(devcluster.folder), "--keep-stages", KEPT, "--store-root", str(folder), "--json"]
    command += ["--seed", str(seed), *(word for name in options for word in (f"--{name}", str(options[name])))]
    done = subprocess.run(command, env=Stx(folder).environment(), capture_output=True, text=True, timeout=limit)
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)["runs"]
    kinds: Counter[str] = sum((Counter(run["faults"]) for run in found), Counter())
    record_property("figures", f"seed {seed}: {len(found)} runs, {kinds.total()} faults {dict(kinds)}")
    for run in found:
        assert not (run["lost"] or run["wrong"] or run["cancelled"] or run["surprises"]), f"seed {seed}\n{done.stderr}"
    return kinds


@pytest.mark.slow
@pytest.mark.sampled(seconds=150)
@pytest.mark.timeout(900)
def test_preempted_killed_and_without_its_node_it_ends_in_the_untouched_payloads(devcluster, tmp_path, record_property):
    options = {"runs": 1, "faults": 7, "every": 4, "limit": 880, "kinds": "preempt,node,kill,term,point"}
    assert broken(devcluster, tmp_path, record_property=record_property, **options).total() > 0
    devcluster.clean()


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_ten_runs_with_a_hundred_faults_of_all_kinds_lose_nothing(devcluster, tmp_path, record_property):
    options = {"record_property": record_property, "faults": 16, "every": 3, "limit": 7100}
    all_kinds = broken(devcluster, tmp_path, runs=8, **options)
    of_the_site = broken(devcluster, tmp_path, runs=2, kinds="preempt,node", **options)
    assert all_kinds.total() + of_the_site.total() >= 100
    assert of_the_site["preempt"] and of_the_site["node"]
    devcluster.clean()
