"""The nodes of a cluster as the tasks of one Slurm allocation, one per node: what is asked for, and what squeue says of
it. submission.py submits it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs.launchers.slurm import commands, queue, site
from jobs.spec import JobState, Observation, Resources


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """What is asked of Slurm.

    cpus, gpus, mem_gb  of each node; None: all cores, no GPU, all memory
    lead_s              so long before its end it is told
    scheduler           partition, account, qos and the like (stx/config/slurm.py)
    path                where the supervisors' sources are; nothing: where ours are
    """

    name: str
    nodes: int
    time_s: float
    lead_s: float
    cpus: int | None = None
    gpus: int | None = None
    mem_gb: float | None = None
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""


def refusal(asked: Allocation) -> str | None:
    """Why it could never run, by what the nodes of its partition have."""
    size = Resources(
        nodes=asked.nodes,
        cpus_per_rank=asked.cpus or 1,
        gpus_per_rank=asked.gpus or 0,
        mem_gb=asked.mem_gb or 0.0,
        time_s=asked.time_s,
        partition=asked.scheduler.get("partition"),
    )
    return site.refusal(site.ask_nodes(), size)


def found(name: str) -> dict[str, Observation]:
    """The own user's allocations of this name that wait or run, by job id, oldest first. From one squeue."""
    rows = queue.parse(commands.run(queue.command(str(os.geteuid()))))
    named = sorted((row for row in rows if row.name == name), key=lambda row: int(row.job_id))
    seen = {row.job_id: queue.observe(row, restart=None) for row in named}
    return {job_id: one for job_id, one in seen.items() if one.state is not JobState.ENDED}


def cancel(job_id: str) -> None:
    """TERM to all its tasks, KILL after KillWait."""
    commands.run(["scancel", job_id])
