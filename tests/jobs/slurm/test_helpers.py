"""The batch script of a helper job: one core, no srun, started again by the site, words appended to one log."""

from dataclasses import replace
from pathlib import Path

from jobs.helper import HelperJob
from jobs.launchers.slurm import site
from jobs.launchers.slurm.helpers import MOST_AFTER, SlurmHelpers

JOB = HelperJob(
    name="stx-e@1a2b3c4d",
    argv=("/opt/py", "-P", "-m", "stx.cli", "submit", "/s/my e.yaml"),
    cwd=Path("/s/experiments/e"),
    log=Path("/s/100%j/coordinator.log"),
    mem_gb=1.5,
    time_s=604800.0,
    env={"PYTHONPATH": "/s/code/1"},
)


def render(**changes):
    return SlurmHelpers().render(replace(JOB, **changes)).splitlines()


def test_the_request_says_its_size_its_log_and_that_it_may_be_started_again():
    lines = render(lead_s=600.0, one_by_one=True)
    for wanted in (
        "#SBATCH --job-name=stx-e@1a2b3c4d",
        "#SBATCH --nodes=1",
        "#SBATCH --cpus-per-task=1",
        "#SBATCH --mem=1536M",
        "#SBATCH --time=7-00:00:00",
        "#SBATCH --signal=B:USR2@600",
        "#SBATCH --dependency=singleton",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --output=/s/100%%j/coordinator.log",
    ):
        assert wanted in lines
    assert not [line for line in lines if "srun" in line or "partition" in line or "account" in line]
    assert lines[-1] == "exec env $STX_BLOCK PYTHONPATH=/s/code/1 /opt/py -P -m stx.cli submit '/s/my e.yaml'"


def test_it_starts_after_the_first_of_several_jobs_or_after_a_while():
    assert "#SBATCH --dependency='afterany:7?afterany:12'" in render(after=("7", "12"))
    (line,) = [line for line in render(after=tuple(map(str, range(5000)))) if "dependency" in line]
    assert line.count("afterany") == MOST_AFTER
    assert "#SBATCH --begin=now+600" in render(delay_s=600.0)


def test_what_the_cluster_file_asks_of_slurm_is_in_the_request():
    asked = {"partition": "cpu", "account": "lab", "qos": None, "exclude": ["n1"], "setup": ["module load x"]}
    lines = render(scheduler=asked)
    assert {"#SBATCH --partition=cpu", "#SBATCH --account=lab", "#SBATCH --exclude=n1"} <= set(lines)
    assert lines.index("module load x") < len(lines) - 1


def test_partitions_are_read_as_scontrol_tells_them():
    text = (
        "PartitionName=low AllowGroups=ALL Default=YES OverSubscribe=NO TRES=cpu=8,mem=24000M\n"
        "PartitionName=whole AllowGroups=ALL Default=NO OverSubscribe=EXCLUSIVE JobDefaults=(null)\n"
    )
    low, whole = site.parse_partitions(text)
    assert (low["Default"], low["OverSubscribe"], low["TRES"]) == ("YES", "NO", "cpu=8,mem=24000M")
    assert (whole["PartitionName"], whole["OverSubscribe"]) == ("whole", "EXCLUSIVE")
