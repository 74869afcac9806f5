"""What a person sees of a real Slurm: requests before they are made, jobs that wait, run and fail, a site's habits."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stx.config.cluster import load_cluster
from stx.coordinator import prepare
from stx.paths import Store
from stx.verbs import doctor, plan, requests, site_probe
from stx.verbs.check import Level
from tests.slurm_cluster import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.sampled(seconds=40)]
ROOT = Path(__file__).parents[2]
FILE = """\
name: naps
stages:
  nap: {kind: command, argv: [sleep, "4"]}
  bad: {kind: command, argv: [sh, -c, "echo shard 3 is gone; exit 3"], inputs: {nap: nap}}
"""
CLUSTER = """\
launcher: slurm
store: STORE
poll_s: 1
coordinator: {where: foreground}
stop_lead_s: 8
stages: {default: {mem_gb: 2, time: 10m}}
slurm: {partition: low}
"""


class Site:
    """A folder with the files above, and stx in it, on a cluster whose commands are in the environment."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self.store = Store(folder / "store")
        self.env = env | {"PYTHONPATH": str(ROOT), "STX_STORE": str(self.store.root), "NO_COLOR": "1"}
        (folder / "e.yaml").write_text(FILE)
        (folder / "c.yaml").write_text(CLUSTER.replace("STORE", str(self.store.root)))

    def start(self, *words: str) -> "subprocess.Popen[str]":
        argv = [sys.executable, "-m", "stx.cli", *words]
        return subprocess.Popen(
            argv, cwd=self.folder, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def stx(self, *words: str) -> str:
        with self.start(*words) as process:
            told, _ = process.communicate(timeout=120)
        return told

    def stage(self, name: str) -> dict:
        """It as `stx status --json` has it; nothing while there is no experiment."""
        told = self.stx("status", "naps", "--json")
        if not told.startswith("{"):
            return {}
        stages = json.loads(told[: told.rindex("}") + 1])["experiments"][0]["stages"]
        return next(one for one in stages if one["name"] == name)


@pytest.fixture
def site(devcluster, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", str(devcluster.conf))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield Site(tmp_path, devcluster.env)
    devcluster.clean()


def test_jobs_are_told_in_words_from_the_request_to_the_last_line_of_a_failure(site, devcluster):
    prepare.check_store(site.store)
    planned = plan.prepare(site.folder / "e.yaml", sets=(), cluster=str(site.folder / "c.yaml"), store=None)
    before = {one.name: one for one in requests.requests(planned, every=True)}

    others = devcluster.sbatch("sleep 60", "-p", "high", "-N4", "--exclusive", "--time=2", "-o", "/dev/null")
    wait_for(lambda: devcluster.job(others)["JobState"] == "RUNNING", limit=20)
    submitted = site.start("submit", "e.yaml", "--cluster", "c.yaml")
    seen: dict = {}

    def reaches(name: str, true) -> bool:
        seen.update(site.stage(name))
        return bool(seen) and true(seen)

    wait_for(
        lambda: reaches("nap", lambda one: one["state"] == "QUEUED" and "(Resources)" in one["why"]),
        limit=40,
        every=0.5,
        seen=lambda: seen,
    )
    assert f"job {seen['job_id']} waits for free nodes" in seen["why"]
    table = site.stx("status", "naps")
    assert seen["job_id"] in table and "waits for free nodes" in table and "nodes" not in table.split("\n")[1].split()

    devcluster.command("scancel", others)
    wait_for(lambda: reaches("nap", lambda one: one["state"] == "RUNNING"), limit=40, every=0.5, seen=lambda: seen)
    assert seen["nodes"] in devcluster.nodes

    told, _ = submitted.communicate(timeout=120)
    assert submitted.returncode == 3, told
    failed = site.stage("bad")
    assert failed["state"] == "FAILED" and any("shard 3 is gone" in line for line in failed["log_tail"])
    assert "bad printed last, in " in site.stx("status", "naps")
    assert "_0_log.out" in site.stx("show", "bad")

    for node in planned.graph.nodes:
        attempt = site.store.stage("command", node.key).attempt(1)
        assert attempt.request.read_text() == before[node.name].text, "the plan and the request are one text"


def test_a_rank_that_never_started_leaves_what_slurm_and_its_supervisor_printed(site):
    (site.folder / "c.yaml").write_text(
        CLUSTER.replace("STORE", str(site.store.root)).replace("partition: low", "partition: low, python: /no/python")
        + "retries: {lost: 0, setup: 0}\n"
    )
    site.stx("submit", "e.yaml", "--cluster", "c.yaml")
    told = site.stx("logs", "nap")
    assert "/no/python" in told and "No such file" in told
    assert any("/no/python" in line for line in site.stage("nap")["log_tail"])


def test_doctor_tells_what_this_site_does_and_what_a_node_sees(site):
    place = Store(site.store.root)
    prepare.check_store(place)
    found = {one.name: one for one in doctor.slurm(load_cluster(site.folder / "c.yaml"), place, probe=True)}
    assert {one.name for one in found.values() if one.level is not Level.OK} == set()
    assert "USR2 at once, TERM after GraceTime = 10 s" in found["preempt low"].words
    assert found["node store"].words.startswith("written, renamed and linked there as here")
    assert "with torch" in found["node python"].words
    assert found["node submits"].words.startswith("yes")
    assert "compute nodes may submit" in found["coordinator"].words
    assert [path.name for path in place.root.iterdir() if path.name.startswith(".doctor")] == []


def test_a_probe_that_cannot_start_says_why_and_leaves_nothing(site, devcluster):
    prepare.check_store(site.store)
    others = devcluster.sbatch("sleep 60", "-p", "high", "-N4", "--exclusive", "--time=2", "-o", "/dev/null")
    wait_for(lambda: devcluster.job(others)["JobState"] == "RUNNING", limit=20)
    began = time.monotonic()
    probe = site_probe.Probe(load_cluster(site.folder / "c.yaml"), site.store, wait_s=4.0)
    (found,) = probe.run()
    assert time.monotonic() - began < 20
    assert found.level is Level.WARN
    assert "did not start within 4 s: job" in found.words and "waits for free nodes (Resources)" in found.words
    assert probe.submits is None
    assert not devcluster.command("squeue", "-h", "-t", "PENDING").strip()
    assert sorted(path.name for path in site.store.root.iterdir()) == ["stages", "store.json"]
