"""Which job a supervisor belongs to, and which of its ranks it starts.

    jobs.exec --slots DIR <attempt dir>           this machine: all ranks, on slots that it waits for
    jobs.exec --slurm <attempt dir>               a task of a Slurm step: the one rank of its number, on what it has
    jobs.exec --ray --watch-fd N <attempt dir>    what a Ray actor starts: its one rank, on what the actor has
    jobs.exec <attempt dir>                       all ranks, without slots

Standard library only.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs import processes
from jobs.spec import Resources


@dataclass(frozen=True)
class Placement:
    """`job_id` and `restart` tell one run of a job from all others: they are what an attempt is claimed with.

    only         the number of the one rank; None: all of them
    slots        where cores and GPUs are shared out; None: they were given to the job
    gpus         what the job was given on this node, as CUDA_VISIBLE_DEVICES names them
    node, nodes  this node and all of the job, as the scheduler calls them; nothing where there is none
    tag          of the job, as the scheduler has it
    elapsed_s    how much of the job's time was over when this was looked at
    watch_fd     one end of a socket, where the job ends with the process at the other end (jobs/parent.py)
    """

    job_id: str
    restart: int = 0
    only: int | None = None
    slots: Path | None = None
    gpus: tuple[str, ...] = ()
    node: str = ""
    nodes: str = ""
    tag: str = ""
    elapsed_s: float = 0.0
    watch_fd: int | None = None

    def numbers(self, resources: Resources) -> range:
        """The ranks that this supervisor starts."""
        return range(resources.ranks) if self.only is None else range(self.only, self.only + 1)

    def gpus_of(self, number: int, resources: Resources, *, granted: Sequence[str]) -> list[str]:
        """Exactly the GPUs of one rank, out of those of the node (or of the task, where the step bound them to it).
        ValueError when the job has fewer than it asked for.
        """
        each, there = resources.gpus_per_rank, [*granted, *self.gpus]
        place = number % resources.ranks_per_node
        mine = there if self.only is not None and len(there) == each else there[place * each : (place + 1) * each]
        if len(mine) != each:
            raise ValueError(f"rank {number} was to have {each} GPUs, and this node shows {len(there)} to its job")
        return mine


def of(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Placement:
    """What the command line says; `--slurm`, `--ray`: with what each task, or each actor, was told."""
    if arguments[0] == "--slurm":
        return _slurm(environment)
    if arguments[0] == "--ray":
        return _ray(environment, watch_fd=int(arguments[2]))
    slots = Path(arguments[1]) if arguments[0] == "--slots" else None
    return Placement(processes.unique_id(processes.me()), slots=slots)


def _slurm(environment: Mapping[str, str]) -> Placement:
    visible = environment.get("CUDA_VISIBLE_DEVICES", "")
    began = float(environment.get("SLURM_JOB_START_TIME") or time.time())
    return Placement(
        job_id=environment["SLURM_JOB_ID"],
        restart=int(environment.get("SLURM_RESTART_COUNT") or 0),
        only=int(environment["SLURM_PROCID"]),
        gpus=tuple(name for name in visible.split(",") if name not in ("", "-1", "NoDevFiles")),
        node=environment.get("SLURMD_NODENAME", ""),
        nodes=environment.get("SLURM_JOB_NODELIST", ""),
        tag=environment.get("SLURM_JOB_NAME", ""),
        elapsed_s=min(max(time.time() - began, 0.0), 120.0),  # two machines' clocks: believed within reason
    )


def _ray(environment: Mapping[str, str], *, watch_fd: int) -> Placement:
    """By the variables that the actor gave its supervisor (jobs/launchers/ray/actor.py)."""
    return Placement(
        job_id=environment["STX_RAY_JOB"],
        only=int(environment["STX_RAY_RANK"]),
        gpus=tuple(filter(None, environment["STX_RAY_GPUS"].split(","))),
        node=environment["STX_RAY_NODE"],
        nodes=environment["STX_RAY_NODES"],
        tag=environment["STX_RAY_TAG"],
        watch_fd=watch_fd,
    )
