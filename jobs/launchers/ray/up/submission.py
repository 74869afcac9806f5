"""The request for an allocation: a batch script of submitit's, which starts one supervisor per node.

Without a size it takes whole nodes (--exclusive, --mem=0); GPUs are asked for by their number either way. What stands
still ends: --kill-on-bad-exit takes the other nodes along where one could not begin, or was killed. One that leaves
takes nobody along, whatever a site's WaitTime is: jobs on the others save. The site does not start it again: the next
cluster is another one.
"""

import shlex
import sys
from pathlib import Path
from typing import Any

import jobs
from jobs.launchers.ray.up.folder import ClusterFolder
from jobs.launchers.ray.up.there import Allocation
from jobs.launchers.slurm import request


def render(folder: ClusterFolder, asked: Allocation) -> str:
    """The batch script; pure."""
    return request.text(_command(folder, asked), logs=folder.path, parameters=_parameters(asked))


def submit(folder: ClusterFolder, asked: Allocation) -> str:
    """Give it to sbatch; the job's id. SlurmError in sbatch's words."""
    return request.send(_command(folder, asked), logs=folder.path, parameters=_parameters(asked))


def _command(folder: ClusterFolder, asked: Allocation) -> str:
    """What srun starts once per node. -P: a folder named `jobs` where it happens to stand is not this package."""
    python = str(asked.scheduler.get("python") or sys.executable)
    path = asked.path or str(Path(jobs.__file__).parent.parent)
    words = [f"PYTHONPATH={path}", python, "-P", "-m", "jobs.launchers.ray.up.node", "--slurm", str(folder.path)]
    return f"env $STX_BLOCK {shlex.join(words)}"


def _parameters(asked: Allocation) -> dict[str, Any]:
    said = asked.scheduler
    # One task has the whole node, whatever a step binds by default.
    bound = ["--cpu-bind=none"] if asked.cpus is None else [f"--cpus-per-task={asked.cpus}"]
    return {
        "job_name": asked.name,
        "nodes": asked.nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": asked.cpus,
        "mem": "0" if asked.mem_gb is None else f"{round(asked.mem_gb * 1024)}M",
        "stderr_to_stdout": True,
        "signal_delay_s": int(asked.lead_s),
        "setup": [request.KEEP_THE_SHELL, request.BLOCK, *said.get("setup", ())],
        "srun_args": [*bound, "--kill-on-bad-exit=1", "--wait=0", *said.get("srun", ())],
        "wckey": None,
        "exclude": ",".join(said.get("exclude", ())) or None,
        "additional_parameters": _additional(asked),
        "partition": said.get("partition") or None,
    } | {name: said.get(name) or None for name in ("account", "qos", "constraint")}


def _additional(asked: Allocation) -> dict[str, Any]:
    """What submitit has no name for; it counts time in minutes."""
    found: dict[str, Any] = {"time": request.hours(asked.time_s), "no-requeue": True}
    if asked.cpus is None:
        found["exclusive"] = True
    if asked.gpus:
        kind = asked.scheduler.get("gpu_type")
        found["gpus-per-node"] = f"{kind}:{asked.gpus}" if kind else str(asked.gpus)
    if asked.scheduler.get("reservation"):
        found["reservation"] = asked.scheduler["reservation"]
    return found
