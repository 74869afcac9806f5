"""Slurm's commands, as somebody types them who stands in no job: SLURM_* would change what they do.

Everything that goes wrong is a SlurmError with the command's own words; `later` where asking again later may help.
"""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence

from jobs.launcher import Refused

LIMIT_S = 60.0
KEPT = frozenset({"SLURM_CONF"})
INHERITED = re.compile(r"(SLURM|SLURMD|SLURM_STEP|SBATCH|SRUN|SALLOC|SQUEUE|SCANCEL|SACCT|PMI|PMIX)_\w*")
# Words of refusals that say nothing against the request: the controller, or a limit of the user's own other jobs.
LATER = (
    "socket timed out",
    "unable to contact slurm controller",
    "unable to connect to slurm",
    "connection refused",
    "slurm backup controller in standby",
    "temporarily unable",
    "zero bytes were transmitted",
    "send/recv operation",
    "invalid protocol data",
    "maxsubmitjob",  # QOSMaxSubmitJobPerUserLimit, AssocMaxSubmitJobLimit
    "max submit",
    "job submission rate",
    "rate limit",
    "did not answer",
)


class SlurmError(Refused):
    """A command of Slurm's failed."""

    def __init__(self, command: str, said: str) -> None:
        super().__init__(f"{command}: {said}", later=any(word in said.lower() for word in LATER))


def scrubbed(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what Slurm puts into a job's; $SLURM_CONF stays."""
    return {name: value for name, value in environment.items() if name in KEPT or INHERITED.fullmatch(name) is None}


def left_out(environment: Mapping[str, str]) -> list[str]:
    """The names that `scrubbed` removes."""
    return sorted(environment.keys() - scrubbed(environment).keys())


def run(command: Sequence[str], *, limit_s: float = LIMIT_S) -> str:
    """Its standard output."""
    environment = scrubbed(os.environ) | {"LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SlurmError(command[0], f"did not answer within {limit_s:g} s") from error
    except FileNotFoundError as error:
        raise SlurmError(command[0], "there is no such program here: is Slurm installed, and on PATH?") from error
    if done.returncode != 0:
        raise SlurmError(command[0], done.stderr.strip() or f"exit code {done.returncode}")
    return done.stdout
