"""Helper jobs on Slurm: one core without srun, started again by the site, its words appended to one log."""

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.helper import HelperJob
from jobs.launchers.slurm import commands, queue, request, site
from jobs.launchers.slurm import partition as partitions
from jobs.spec import JobState, Observation, Resources

MOST_AFTER = 200  # ids of one dependency; whoever starts after the first of them looks at all


class SlurmHelpers:
    """jobs.helper.Helpers on the cluster whose commands are on PATH."""

    def longest_s(self, partition: str | None) -> float | None:
        """The partition's limit."""
        nodes = site.ask_nodes() if shutil.which("sinfo") else []
        limits = [one.time_s for one in nodes if one.serves(partition)]
        return min((limit for limit in limits if limit is not None), default=None)

    def refusal(self, job: HelperJob) -> str | None:
        """By what the nodes of its partition have; not known where no Slurm is."""
        size = Resources(mem_gb=job.mem_gb, time_s=job.time_s, partition=job.scheduler.get("partition"))
        nodes = site.ask_nodes() if shutil.which("sinfo") else []
        return site.refusal(nodes, size) if nodes else None

    def whole_nodes(self, partition: str | None) -> str:
        """SelectType, or OverSubscribe of the partition; without a name, of the default one."""
        if shutil.which("scontrol") is None:
            return ""
        there = site.ask()
        if there.values.get("SelectType") == "select/linear":
            return "SelectType=select/linear"
        for one in partitions.ask(there):
            if one.whole and (one.default if partition is None else one.name == partition):
                return f"OverSubscribe=EXCLUSIVE of partition {one.name}"
        return ""

    def render(self, job: HelperJob) -> str:
        """The batch script."""
        return request.text(command(job), logs=job.log.parent, parameters=_parameters(job))

    def submit(self, job: HelperJob) -> str:
        """Give it to sbatch."""
        return request.send(command(job), logs=job.log.parent, parameters=_parameters(job))

    def found(self, name: str) -> dict[str, Observation]:
        """From one squeue. One that is COMPLETING does nothing more."""
        rows = queue.parse(commands.run(queue.command(str(os.geteuid()))))
        seen = {row.job_id: queue.observe(row, restart=None) for row in sorted(rows, key=_age) if _is_alive(row, name)}
        return {job_id: one for job_id, one in seen.items() if one.state is not JobState.ENDED}

    def cancel_waiting(self, job_ids: Sequence[str]) -> None:
        """scancel leaves those alone that run."""
        if job_ids:
            commands.run(["scancel", "--state=PENDING", *job_ids])


def _age(row: queue.Row) -> int:
    return int(row.job_id)


def _is_alive(row: queue.Row, name: str) -> bool:
    return row.name == name and row.state != "COMPLETING"


def command(job: HelperJob) -> str:
    """It takes the shell's place: a signal for the batch script is one for it, and waits while it starts."""
    settings = [f"{name}={value}" for name, value in job.env.items()]
    return f"exec env $STX_BLOCK {shlex.join([*settings, *job.argv])}"


def _parameters(job: HelperJob) -> dict[str, Any]:
    asked = job.scheduler
    named = ("partition", "account", "qos", "constraint")
    return {
        "job_name": job.name,
        "nodes": 1,
        "ntasks_per_node": 1,
        "cpus_per_task": 1,
        "mem": f"{round(job.mem_gb * 1024)}M",
        "stderr_to_stdout": True,
        "setup": [request.BLOCK, *asked.get("setup", ())],
        "use_srun": False,
        "wckey": None,
        "exclude": ",".join(asked.get("exclude", ())) or None,
        "additional_parameters": _additional(job),
    } | {name: asked.get(name) or None for name in named}


def _additional(job: HelperJob) -> dict[str, Any]:
    found: dict[str, Any] = {
        "time": request.hours(job.time_s),
        "requeue": True,
        "chdir": str(job.cwd),
        "output": _literal(job.log),
        "signal": f"B:USR2@{max(1, round(job.lead_s))}",
    }
    if job.one_by_one:
        found["dependency"] = "singleton"
    elif job.after:
        found["dependency"] = "?".join(f"afterany:{job_id}" for job_id in job.after[:MOST_AFTER])
    if job.delay_s > 0:
        found["begin"] = f"now+{round(job.delay_s)}"
    if job.scheduler.get("reservation"):
        found["reservation"] = job.scheduler["reservation"]
    return found


def _literal(path: Path) -> str:
    """As sbatch reads a file name: %j would be the job's id."""
    return str(path).replace("%", "%%")
