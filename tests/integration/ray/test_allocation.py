"""Ray inside a Slurm allocation, on a real Slurm and a real Ray: it comes up and goes down without leaving anything,
and an experiment outlives the allocations that are taken from it.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import processes
from stx.paths import Store
from tests.integration.slurm.conftest import Commands
from tests.slurm_cluster import wait_for

ROOT = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(800)]

CLUSTER = """\
launcher: ray
name: rays
store: {folder}/store
poll_s: 0.5
backoff_s: [0]
stop_lead_s: 10
checkpoint: {{every_s: 30}}
ray: {{where: slurm, nodes: 2, time: 10m, cpus_per_node: 2, mem_gb: 3, join_s: 120}}
slurm: {{partition: low}}
stages:
  default: {{cpus_per_rank: 1, mem_gb: 0.5, time: 10m}}
"""
# It works until a file is there; asked to leave, it saves and yields.
EXPERIMENT = """\
name: waits
stages:
  first: {{kind: command, version: "1", argv: [sh, -c, "{program}"]}}
  second: {{kind: command, version: "2", argv: [sh, -c, "{program}"]}}
"""
PROGRAM = "trap 'exit 75' USR2 TERM; echo run >> $STX_OUTPUT/runs; until [ -e {folder}/go ]; do sleep 0.2; done"


class Site:
    """A cluster file for the devcluster, and what people do with it."""

    def __init__(self, devcluster, folder: Path) -> None:
        self.devcluster = devcluster
        self.folder = folder
        self.store = Store(folder / "store")
        self.env = {**devcluster.env, "PYTHONPATH": str(ROOT), "HOME": str(folder), "NO_COLOR": "1"}
        (folder / "cluster.yaml").write_text(CLUSTER.format(folder=folder))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "stx.cli", *arguments, "--cluster", "cluster.yaml"]
        with (self.folder / "out").open("a") as out:
            return subprocess.Popen(argv, cwd=self.folder, env=self.env, stdout=out, stderr=subprocess.STDOUT)

    def run(self, *arguments: str, limit: float = 300) -> str:
        argv = [sys.executable, "-m", "stx.cli", *arguments, "--cluster", "cluster.yaml"]
        done = subprocess.run(argv, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=limit)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}\n{self.words()}"
        return done.stdout

    def status(self) -> dict:
        return json.loads(self.run("ray", "status", "--json"))

    def jobs(self) -> list[str]:
        return self.devcluster.command("squeue", "-h", "-o", "%i %j %T").splitlines()

    def words(self) -> str:
        logs = [self.folder / "out", *self.store.root.glob("ray/*/*/*")]
        texts = [f"{path}:\n{path.read_text(errors='replace')[-2000:]}" for path in logs if path.is_file()]
        return "\n".join(texts)

    def processes(self) -> list[list[bytes]]:
        """Whatever runs that was told of this folder, or that Ray started: their own words."""
        found = []
        for process in processes.every():
            words = processes.arguments(process.pid)
            told = b"\0".join(words) + (processes.variable(process.pid, "HOME") or "").encode()
            if process.pid != os.getpid() and str(self.folder).encode() in told:
                found.append(words)
        return found


@pytest.fixture
def site(devcluster, tmp_path):
    made = Site(devcluster, tmp_path)
    yield made
    devcluster.clean()
    left = made.processes()
    for process in processes.every():
        if processes.variable(process.pid, "HOME") == str(tmp_path):
            os.kill(process.pid, signal.SIGKILL)
    assert not left, f"left behind: {left}\n{made.words()}"


@pytest.mark.sampled(seconds=60)
def test_a_cluster_comes_up_in_an_allocation_says_where_it_is_and_goes_down(site):
    assert "rays: UP, job" in site.run("ray", "up")
    found = site.status()
    assert found["state"] == "UP" and found["record"]["nodes"] == 2
    assert len({node["name"] for node in found["nodes"]}) == 2
    assert all(node["step"] == "UP" for node in found["nodes"])
    assert found["record"]["via"][:2] == ["srun", f"--jobid={found['job_id']}"]
    token = Path(found["record"]["token"])
    assert token.stat().st_mode & 0o777 == 0o600 and not token.is_relative_to(site.store.root)
    told = json.loads(site.run("dashboard", "--json"))
    assert told["url"] == found["record"]["dashboard"] and told["tunnel"].startswith("ssh -N -L ")
    assert "none is added" in site_err(site, "ray", "up")
    site.run("ray", "down")
    assert site.status()["state"] == "OVER" and not token.exists()
    wait_for(lambda: not site.jobs(), limit=30, seen=site.jobs)
    wait_for(lambda: not site.processes(), limit=30, seen=site.processes)


@pytest.mark.sampled(seconds=60)
def test_an_allocation_that_sbatch_refuses_leaves_nothing_and_one_whose_answer_was_lost_is_used(site):
    commands = Commands(site.folder / "bin")
    commands.make()
    site.env["PATH"] = f"{commands.folder}:{site.env.get('PATH', os.environ['PATH'])}"
    commands.fail("sbatch", "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy")
    assert "Job violates accounting/QOS policy" in site_err(site, "ray", "up")
    assert site.status()["state"] == "OVER" and not [*(site.folder / ".stx" / "ray").iterdir()]
    commands.work("sbatch")
    commands.be_late("sbatch", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
    assert "rays: UP, job" in site.run("ray", "up")
    assert len(site.jobs()) == 1
    site.run("ray", "down")
    wait_for(lambda: not site.jobs(), limit=30, seen=site.jobs)
    wait_for(lambda: not site.processes(), limit=30, seen=site.processes)


def site_err(site: Site, *arguments: str) -> str:
    argv = [sys.executable, "-m", "stx.cli", *arguments, "--cluster", "cluster.yaml"]
    done = subprocess.run(argv, cwd=site.folder, env=site.env, capture_output=True, text=True, timeout=120)
    return done.stderr


def preempt(site: Site) -> None:
    """A partition that goes first takes all nodes for a moment."""
    site.devcluster.sbatch("sleep 3", "-p", "high", "-N4", "--exclusive", "-o", "/dev/null")


def kill_the_head(site: Site) -> None:
    """The supervisor of the first node, and with it the head of Ray."""
    told = json.loads((site.store.root / "ray/rays/001/node-0.json").read_text())
    os.kill(int(told["process"].partition(":")[0]), signal.SIGKILL)


def wait(site: Site) -> None:
    """Nothing: its time ends."""


@pytest.mark.parametrize(
    ("happens", "time"),
    [
        pytest.param(preempt, "10m", marks=pytest.mark.sampled(seconds=110)),
        pytest.param(kill_the_head, "10m", marks=pytest.mark.sampled(seconds=110)),
        pytest.param(wait, "2m", marks=pytest.mark.full),
    ],
    ids=["preempted", "head killed", "time limit"],
)
def test_an_experiment_goes_on_in_the_next_allocation_when_one_was_taken_away(happens, time, site):
    file = site.folder / "cluster.yaml"
    file.write_text(file.read_text().replace("time: 10m, cpus_per_node", f"time: {time}, cpus_per_node"))
    program = PROGRAM.format(folder=site.folder)
    (site.folder / "waits.yaml").write_text(EXPERIMENT.format(program=program))
    submit = site.start("submit", "waits.yaml", "--foreground")
    try:
        wait_for(lambda: runs(site) == [1, 1], limit=150, seen=site.words)
        happens(site)
        wait_for(lambda: runs(site) == [2, 2], limit=300, seen=site.words)
        (site.folder / "go").touch()
        assert submit.wait(120) == 0, site.words()
    finally:
        submit.kill()
        submit.wait()
    assert [path.name for path in sorted((site.store.root / "ray" / "rays").glob("0*"))] == ["001", "002"]
    results = [outcomes(site, number) for number in ("001", "002")]
    assert results == [["YIELDED", "YIELDED"], ["COMPLETED", "COMPLETED"]]
    wait_for(lambda: not site.jobs(), limit=60, seen=site.jobs)
    wait_for(lambda: not site.processes(), limit=30, seen=site.processes)


def runs(site: Site) -> list[int]:
    """How often each stage's program has begun so far."""
    logs = site.store.stages.glob("command-*/attempts/*/output/runs")
    begun: dict[str, int] = {}
    for path in logs:
        stage = path.parents[3].name
        begun[stage] = max(begun.get(stage, 0), path.read_text().count("run"))
    return sorted(begun.values())


def outcomes(site: Site, attempt: str) -> list[str]:
    found = site.store.stages.glob(f"command-*/attempts/{attempt}/outcome-0.json")
    return [json.loads(path.read_text())["result"] for path in found]
