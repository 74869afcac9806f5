"""The real thing: a Slurm comes up, runs jobs, preempts, loses a node, and goes without a trace."""

import os
import pwd
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.slurm_cluster import HERE, DevCluster, cluster, run_devcluster, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.sampled(seconds=25)]

# A program that says which signals reach it, and when it began.
NOTES = """exec srun -u python3 -c '
import signal, time
def note(number, frame): print(signal.Signals(number).name, flush=True)
signal.signal(signal.SIGUSR2, note)
signal.signal(signal.SIGTERM, note)
print("began", flush=True)
while True: time.sleep(1)
'"""


def text(path: Path) -> str:
    """What tasks printed; srun -u may put words of several on one line."""
    return path.read_text() if path.exists() else ""


def test_a_job_on_two_nodes_runs_to_the_end(devcluster: DevCluster, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = devcluster.sbatch("srun sh -c 'echo $SLURMD_NODENAME'", "-N2", "--ntasks-per-node=1", "-o", str(out))
    wait_for(lambda: devcluster.job(job)["JobState"] == "COMPLETED", limit=30)
    assert sorted(text(out).split()) == ["n1", "n2"]


def test_a_second_up_refuses_and_says_how_to_use_and_end_the_first(devcluster: DevCluster) -> None:
    before = devcluster.processes()
    again = run_devcluster("up", "--dir", str(devcluster.folder))
    assert again.returncode == 1
    assert "is up in" in again.stderr
    assert f". {devcluster.folder}/env" in again.stderr
    assert "slurm/devcluster/down" in again.stderr
    assert devcluster.processes() == before


def test_a_low_job_is_told_of_preemption_by_the_signal_it_asked_for(devcluster: DevCluster, tmp_path: Path) -> None:
    out = tmp_path / "low"
    whole = ("-N4", "--exclusive", "--time", "10")
    low = devcluster.sbatch(NOTES, *whole, "--signal=USR2@60", "--requeue", "-o", str(out))
    wait_for(lambda: text(out).count("began") == 4, limit=30)
    coordinator = devcluster.sbatch("sleep 300", "-p", "cpu", "-o", "/dev/null")
    high = devcluster.sbatch("sleep 1", *whole, "-p", "high", "-o", "/dev/null")
    wait_for(lambda: text(out).count("SIGUSR2") == 4, limit=20)
    assert "SIGTERM" not in text(out)
    # Grace is 10 s, but slurmctld looks only every 30 s whose grace is over.
    wait_for(lambda: devcluster.job(high)["JobState"] == "COMPLETED", limit=70)
    assert devcluster.job(coordinator)["JobState"] == "RUNNING"
    wait_for(lambda: devcluster.job(low)["Restarts"] == "1", limit=10)
    wait_for(lambda: devcluster.job(low)["JobState"] == "RUNNING", limit=60)
    devcluster.clean()


def test_a_node_that_is_killed_is_down_within_slurmd_timeout_and_comes_back(devcluster: DevCluster) -> None:
    job = devcluster.sbatch("sleep 300", "-w", "n3", "--no-requeue", "-o", "/dev/null")
    wait_for(lambda: devcluster.job(job)["JobState"] == "RUNNING", limit=20)
    devcluster.node("down", "n3")
    began = time.monotonic()
    wait_for(lambda: devcluster.node_state("n3").startswith("DOWN"), limit=40)
    assert time.monotonic() - began < 35
    assert devcluster.job(job)["JobState"] == "NODE_FAIL"
    assert devcluster.node_state("n1") == "IDLE"
    devcluster.node("up", "n3")
    devcluster.clean()


def test_jobs_survive_the_death_of_the_controller(devcluster: DevCluster, tmp_path: Path) -> None:
    done = tmp_path / "done"
    job = devcluster.sbatch(f"sleep 12; touch {done}", "-o", "/dev/null")
    wait_for(lambda: devcluster.job(job)["JobState"] == "RUNNING", limit=20)
    # slurmctld writes its state up to 5 s late: killed before, it starts this job again and drains the node for it.
    time.sleep(7)
    devcluster.controller("down")
    assert run_devcluster("controller", "down", "--dir", str(devcluster.folder)).returncode == 1
    wait_for(done.exists, limit=20)
    devcluster.controller("up")
    wait_for(lambda: devcluster.job(job)["JobState"] == "COMPLETED", limit=60)
    devcluster.clean()


def test_down_ends_jobs_and_daemons_and_leaves_nothing() -> None:
    with cluster("--nodes", "1", "--no-user-signal", "--grace-s", "0", "--preempt-mode", "CANCEL") as made:
        low = made.sbatch("srun sleep 300 & setsid sleep 300 & wait", "-w", "n1", "--exclusive", "-o", "/dev/null")
        wait_for(lambda: made.job(low)["JobState"] == "RUNNING", limit=20)
        high = made.sbatch("srun sleep 300", "-w", "n1", "--exclusive", "-p", "high", "-o", "/dev/null")
        wait_for(lambda: made.job(high)["JobState"] == "RUNNING", limit=60)
        assert made.job(low)["JobState"] == "PREEMPTED"
        ended = run_devcluster("down", "--dir", str(made.folder))
        assert ended.returncode == 0, ended.stderr
        assert made.processes() == []
        again = run_devcluster("down", "--dir", str(made.folder))
        assert (again.returncode, "no devcluster is up" in again.stderr) == (1, True)


@pytest.mark.full
def test_with_accounting_sacct_knows_the_job_and_a_limit_of_jobs_holds() -> None:
    with cluster("--nodes", "1", "--accounting", "--max-submit", "1") as made:
        job = made.sbatch("sleep 2", "-o", "/dev/null")
        with pytest.raises(AssertionError, match="QOSMaxSubmitJobPerUserLimit"):
            made.sbatch("true", "-o", "/dev/null")
        wait_for(lambda: "COMPLETED" in made.command("sacct", "-X", "-n", "-o", "state", "-j", job), limit=30)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.full
def test_it_runs_without_root() -> None:
    """In one user's hands: slurmctld and slurmd are that user's, and run that user's jobs."""
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(prefix="stx-dc-", dir="/tmp") as folder:
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)

        def as_nobody(*argv: str) -> subprocess.CompletedProcess[str]:
            drop = ("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups")
            env = {"PATH": os.environ["PATH"], "HOME": folder, "SLURM_CONF": f"{folder}/slurm.conf"}
            return subprocess.run((*drop, *argv), env=env, capture_output=True, text=True, timeout=120, cwd="/")

        made = as_nobody("/usr/bin/python3", str(HERE / "up"), "--nodes", "2", "--dir", folder)
        try:
            assert made.returncode == 0, made.stderr
            ran = as_nobody("srun", "-N2", "id", "--user", "--name")
            assert (ran.returncode, ran.stdout.split()) == (0, ["nobody", "nobody"]), ran.stderr
        finally:
            ended = as_nobody("/usr/bin/python3", str(HERE / "down"), "--dir", folder)
        assert ended.returncode == 0, ended.stderr
