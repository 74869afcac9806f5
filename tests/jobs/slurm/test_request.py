"""The batch script: everything a person would look for, and nothing of submitit's own command."""

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.launchers.slurm import request
from jobs.spec import JobSpec, Resources

JOB = JobSpec(
    tag="stx-0-a-1",
    argv=("python", "-m", "stx.worker", "run", "/s/001"),
    attempt_dir=Path("/s/my stage/attempts/001"),
    cwd=Path("/s/my stage/attempts/001"),
    resources=Resources(nodes=2, ranks_per_node=8, cpus_per_rank=6, gpus_per_rank=1, mem_gb=480, time_s=90061.0),
    env={"PYTHONPATH": "/s/code/1:/home/me/lib"},
    stop_lead_s=120,
)


def test_the_request_says_the_size_the_time_and_the_signal():
    lines = request.render(JOB).splitlines()
    for wanted in (
        "#SBATCH --job-name=stx-0-a-1",
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=8",
        "#SBATCH --cpus-per-task=6",
        "#SBATCH --gpus-per-node=8",
        "#SBATCH --mem=491520M",
        "#SBATCH --time=1-01:01:01",
        "#SBATCH --signal=USR2@120",
        "#SBATCH --no-requeue",
    ):
        assert wanted in lines
    assert not [line for line in lines if "partition" in line or "account" in line or "wckey" in line]


def test_srun_starts_one_supervisor_per_rank_and_is_told_the_cpus_again():
    (line,) = [line for line in request.render(JOB).splitlines() if line.startswith("srun ")]
    assert "--cpus-per-task=6" in line and "--kill-on-bad-exit=1" in line
    assert line.endswith("-P -m jobs.exec --slurm '/s/my stage/attempts/001'")
    assert "env $STX_BLOCK PYTHONPATH=/s/code/1:/home/me/lib" in line
    assert "submitit.core._submit" not in line


def test_what_the_cluster_file_asks_of_slurm_is_in_the_request():
    asked = {"account": "lab", "qos": "high", "constraint": "ib", "reservation": "r", "gpu_type": "h100"}
    asked |= {"exclude": ["n1", "n2"], "setup": ["module load cuda"], "srun": ["--mpi=none"], "python": "/opt/py"}
    job = replace(JOB, scheduler=asked, avoid=("n2", "n9"), resources=replace(JOB.resources, partition="gpu"))
    text = request.render(job)
    for name, value in {"partition": "gpu", "account": "lab", "qos": "high", "constraint": "ib"}.items():
        assert f"#SBATCH --{name}={value}\n" in text
    assert "#SBATCH --reservation=r\n" in text and "#SBATCH --gpus-per-node=h100:8\n" in text
    assert "#SBATCH --exclude=n1,n2,n9\n" in text
    assert text.index("module load cuda") < text.index("\nsrun ")
    assert "--mpi=none" in text and "/opt/py -P -m jobs.exec" in text


@pytest.mark.parametrize(("seconds", "told"), [(1.0, "0-00:00:01"), (90.4, "0-00:01:30"), (86400.0, "1-00:00:00")])
def test_a_time_is_told_to_the_second(seconds, told):
    assert request.hours(seconds) == told


def test_rendering_writes_nothing_and_says_the_same_twice(tmp_path):
    job = replace(JOB, attempt_dir=tmp_path / "001")
    assert request.render(job) == request.render(job)
    assert not list(tmp_path.iterdir())
