"""The environment of a rank. Standard library only."""

import os
import re

from jobs.files import AttemptDir
from jobs.spec import JobSpec

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_FOREIGN = re.compile(r"MASTER_ADDR|MASTER_PORT|(?!SLURM_CONF$)(SLURM|SLURMD|SBATCH|SRUN|PMI|PMIX|RAY|STX_RAY)_\w+")


def environment(
    job: JobSpec, number: int, *, gpus: list[str], attempt: AttemptDir, kill_at: float, node: str
) -> dict[str, str]:
    """A rank's environment: ours, the job's own, torch's contract, and exactly the GPUs and threads it was given.
    `node` is what the scheduler calls this node; nothing where there is no scheduler.

    What a scheduler says of its own job stays out: libraries look for it, and would start as they think it means.
    """
    resources = job.resources
    inherited = {name: value for name, value in os.environ.items() if not _FOREIGN.fullmatch(name)}
    contract = {
        "RANK": str(number),
        "WORLD_SIZE": str(resources.ranks),
        "LOCAL_RANK": str(number % resources.ranks_per_node),
        "LOCAL_WORLD_SIZE": str(resources.ranks_per_node),
        "STX_ATTEMPT": str(attempt.path),
        "STX_DEADLINE": repr(kill_at),
        "STX_NODE": node,
        "CUDA_VISIBLE_DEVICES": ",".join(gpus),
        "PYTHONUNBUFFERED": "1",  # a killed rank's last lines are in its log
    }
    threads = dict.fromkeys(_THREAD_VARIABLES, str(resources.cpus_per_rank))
    return inherited | threads | dict(job.env) | contract
