"""Where the coordinator lives on a cluster: in a job that renews itself, in a chain of passes. On a real Slurm."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from stx.coordinator import lease
from tests.cli.shell import Shell
from tests.slurm_cluster import DevCluster, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.sampled(seconds=25)]
CLUSTER = """
launcher: slurm
poll_s: 0.5
lease_s: 5
backoff_s: [0, 2]
stop_lead_s: 5
coordinator: {where: job, partition: cpu, time: 10m, mem_gb: 0.5}
stages: {default: {mem_gb: 0.5, time: 5m}}
slurm: {partition: low}
"""
# The first stage ends when GO is there.
TWO = """
name: two
stages:
  first: {kind: command, argv: [sh, -c, "while ! test -e GO; do sleep 0.2; done; touch $STX_OUTPUT/x"]}
  second: {kind: command, argv: [sh, -c, "touch $STX_OUTPUT/x"], inputs: {first: first}}
"""


class Site(Shell):
    """stx on a devcluster. `where: job` is said by cluster.yaml."""

    def __init__(self, folder: Path, cluster: DevCluster) -> None:
        super().__init__(folder)
        self.slurm = cluster
        self.env |= {"SLURM_CONF": str(cluster.conf)}
        self.file = self.write(TWO)
        self.home("job")

    def home(self, where: str) -> None:
        (self.folder / "cluster.yaml").write_text(CLUSTER.replace("where: job", f"where: {where}"))

    def submit(self, *options: str) -> str:
        return self("submit", str(self.file), "--cluster", "cluster.yaml", *options).stderr

    def helpers(self) -> dict[str, str]:
        """State by job id, oldest first, of what is no job of a stage: its name has an @."""
        lines = self.slurm.command("squeue", "-h", "--Format=JobID:|,State:|,Name:").splitlines()
        rows = [[word.strip() for word in line.split("|")] for line in lines]
        found = {job_id: state for job_id, state, name in rows if "@" in name and state != "COMPLETING"}
        return dict(sorted(found.items(), key=lambda item: int(item[0])))

    def driver(self) -> lease.Holder | None:
        return lease.holder(self.store.experiment("two"))

    def job(self) -> str:
        record = json.loads(self.store.experiment("two").coordinator.read_text())
        return str(record["job_id"])

    def log(self) -> str:
        return self.store.experiment("two").log.read_text()

    def go(self) -> None:
        (self.folder / "go").touch()

    def finish(self) -> None:
        """Let the first stage end, and see all of it done, nothing left in the queue, and no second attempt."""
        self.go()
        done = {"first": "DONE", "second": "DONE"}
        wait_for(lambda: self.states("two") == done, limit=60, every=1.0, seen=self.log)
        wait_for(lambda: not self.helpers(), limit=30, seen=self.log)
        assert not self.store.experiment("two").coordinator.exists()
        assert len(list(self.store.stages.glob("*/attempts/*.intent.json"))) == 2
        wait_for(lambda: "all 2 stages done" in self.log(), limit=30, seen=self.log)


def refuse_once(site: Site, words: str) -> None:
    """The next sbatch does nothing but say these; the ones after it are Slurm's."""
    folder = site.folder / "bin"
    folder.mkdir()
    script = folder / "sbatch"
    once = f'if mkdir "{folder}/once" 2>/dev/null; then echo "{words}" >&2; exit 1; fi'
    script.write_text(f'#!/bin/sh\n{once}\nexec "{shutil.which("sbatch")}" "$@"\n')
    script.chmod(0o755)
    site.env |= {"PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.fixture
def site(tmp_path: Path, devcluster: DevCluster) -> Iterator[Site]:
    yield Site(tmp_path, devcluster)
    devcluster.command("scancel", "--user", str(os.getuid()))
    wait_for(lambda: not devcluster.command("squeue", "-h").strip(), limit=60)


def test_a_job_drives_the_experiment_to_its_end_and_a_second_submit_adds_none(site: Site) -> None:
    said = site.submit()
    assert f"job {site.job()} on " in said and "drives two" in said
    wait_for(lambda: list(site.helpers().values()) == ["RUNNING", "PENDING"], limit=30, seen=site.log)
    (look,) = site.json("status", "two")["experiments"]
    one = next(iter(site.helpers()))
    assert look["coordinator"]["job_id"] == one == site.job()
    second = site.start("submit", str(site.file), "--cluster", "cluster.yaml")
    wait_for(
        lambda: "first" in site.states("two") and site.states("two")["first"] == "RUNNING", limit=30, seen=site.log
    )
    assert list(site.helpers().values()) == ["RUNNING", "PENDING"] and next(iter(site.helpers())) == one
    site.finish()
    _, words = second.communicate(timeout=30)
    assert (second.returncode, "is being driven already" in words) == (0, True), words


def test_a_coordinators_job_that_waits_is_not_queued_again(site: Site) -> None:
    site.slurm.command("scontrol", "update", "PartitionName=cpu", "State=DOWN")
    try:
        said = site.submit()
        assert "its partition is down" in said and "nobody has to watch" in said
        assert "has its coordinator" in site.submit()
        assert len(site.helpers()) == 1
        assert f"no process now, job {site.job()} comes next" in site("status", "two").stdout
    finally:
        site.slurm.command("scontrol", "update", "PartitionName=cpu", "State=UP")
    site.finish()


def begins(site: Site, *, after: str) -> None:
    """Another job than `after` drives, and the next one waits for its end."""
    wait_for(lambda: site.job() != after and site.driver() is not None, limit=90, every=0.5, seen=site.log)
    wait_for(lambda: list(site.helpers().values()) == ["RUNNING", "PENDING"], limit=30, seen=site.log)
    assert next(iter(site.helpers())) == site.job()


@pytest.mark.sampled(seconds=45)
def test_near_its_end_the_job_leaves_and_the_next_one_drives(site: Site) -> None:
    site.submit()
    old = site.job()
    site.slurm.command("scancel", "--signal=USR2", "--batch", old)
    begins(site, after=old)
    assert f"the time of job {old} is nearly over: job {site.job()} goes on" in site.log()
    assert site.slurm.job(old)["JobState"] == "COMPLETED"
    site.finish()


@pytest.mark.full
def test_a_time_limit_is_left_before_it_ends_the_job(site: Site) -> None:
    cluster = site.folder / "cluster.yaml"
    cluster.write_text(cluster.read_text().replace("time: 10m, mem", "time: 2m, mem"))
    site.submit()
    old = site.job()
    wait_for(lambda: f"the time of job {old} is nearly over" in site.log(), limit=130, every=1.0)
    begins(site, after=old)
    assert site.slurm.job(old)["JobState"] == "COMPLETED"
    site.finish()


@pytest.mark.sampled(seconds=45)
def test_a_job_that_the_site_ends_and_starts_again_takes_over(site: Site) -> None:
    site.submit()
    before = site.driver()
    site.slurm.command("scontrol", "requeue", site.job())
    wait_for(lambda: site.slurm.job(site.job())["Restarts"] == "1", limit=30)
    wait_for(lambda: (now := site.driver()) is not None and now != before, limit=90, every=0.5, seen=site.log)
    assert next(iter(site.helpers())) == site.job()
    site.finish()


@pytest.mark.sampled(seconds=45)
@pytest.mark.parametrize("how", ["kill -9", "scancel"])
def test_a_coordinator_that_is_ended_by_hand_is_followed_by_the_job_that_waited(site: Site, how: str) -> None:
    site.submit()
    wait_for(lambda: list(site.helpers().values()) == ["RUNNING", "PENDING"], limit=30, seen=site.log)
    old, driver = site.job(), site.driver()
    assert driver is not None
    if how == "scancel":
        site.slurm.command("scancel", old)
    else:
        os.kill(driver.pid, signal.SIGKILL)
    begins(site, after=old)
    site.finish()


def test_a_cancelled_experiment_leaves_no_coordinator_in_the_queue_and_another_submit_takes_it_up(site: Site) -> None:
    site.submit()
    wait_for(lambda: site.states("two")["first"] == "RUNNING", limit=30, seen=site.log)
    site("cancel", "two", "--cluster", "cluster.yaml")
    wait_for(lambda: not site.helpers(), limit=60, seen=site.log)
    assert site.states("two")["first"] == "CANCELLED"
    assert "what was cancelled runs again: first, second" in site.submit()
    site.go()
    wait_for(lambda: set(site.states("two").values()) == {"DONE"}, limit=60, every=1.0, seen=site.log)


def test_a_link_of_a_chain_that_is_killed_is_followed_by_another(site: Site) -> None:
    site.home("chain")
    site.submit()
    (link,) = site.helpers()
    site.slurm.command("scontrol", "update", f"JobId={link}", "Dependency=")
    wait_for(lambda: site.driver() is not None, limit=60, every=0.02, seen=site.log)
    driver = site.driver()
    assert driver is not None
    os.kill(driver.pid, signal.SIGKILL)
    wait_for(lambda: list(site.helpers().values()) == ["PENDING"], limit=30, seen=site.log)
    (later,) = site.helpers()
    assert later != link
    site.go()
    site.slurm.command("scontrol", "update", f"JobId={later}", "StartTime=now")
    site.finish()


def test_a_link_that_may_not_add_a_later_one_makes_its_pass_and_adds_the_next(site: Site) -> None:
    site.home("chain")
    site.submit()
    (link,) = site.helpers()
    refuse_once(site, "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy")
    directory = site.store.experiment("two")
    by_hand = ["submit", str(directory.file), "--copy-of", str(site.file), "--within", "chain"]
    said = site(*by_hand, "--cluster", str(directory.cluster("cluster")), "--store", str(site.store.root)).stderr
    assert "Job violates accounting/QOS policy" in said
    assert "two: started nothing" in said and "two: the next pass is job" in said
    (later,) = site.helpers()
    assert later != link
    site.finish()


def test_a_chain_runs_to_its_end_and_leaves_no_process_between(site: Site) -> None:
    site.home("chain")
    assert "started 1 attempt (first)" in site.submit()
    assert site.driver() is None
    assert set(site.helpers().values()) == {"PENDING"}
    assert "started nothing" in site.submit()  # one more pass, and still one link
    assert set(site.helpers().values()) == {"PENDING"} and len(site.helpers()) == 1
    site.finish()


def test_a_partition_that_hands_out_whole_nodes_is_refused_unless_allowed(site: Site) -> None:
    whole = (site.folder / "cluster.yaml").read_text().replace("partition: cpu", "partition: whole")
    (site.folder / "cluster.yaml").write_text(whole)
    said = site("plan", str(site.file), "--cluster", "cluster.yaml", code=2).stderr
    assert "cluster.yaml:7: coordinator.partition = whole" in said
    assert "OverSubscribe=EXCLUSIVE of partition whole" in said
    (site.folder / "cluster.yaml").write_text(whole.replace("where: job,", "where: job, allow_whole_nodes: true,"))
    site("plan", str(site.file), "--cluster", "cluster.yaml")
