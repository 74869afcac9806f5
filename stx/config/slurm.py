"""What a job asks of Slurm besides its size, and the defaults of a cluster file whose launcher it is."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from stx.config.schema import Many, Section, refusal

# Jobs wait for minutes there, and everybody asks one controller; a save goes over a network.
DEFAULTS: Mapping[str, Any] = {
    "coordinator": {"where": "detached"},
    "poll_s": 30.0,
    "lease_s": 60.0,
    "backoff_s": [0.0, 60.0, 300.0, 1800.0],
    "checkpoint": {"every_s": 600.0},
    "limits": {"queued": 100},
}


def _one_line(value: str) -> str:
    if "\n" in value or not value.strip():
        raise refusal("must be one line, and not empty", "several lines are several entries of the list")
    return value


def _word(value: str) -> str:
    if not value or any(character.isspace() or character in "'\"" for character in value):
        raise refusal("must be one word", "as sbatch takes it: no spaces, no quotes")
    return value


Word = Annotated[str, AfterValidator(_word)]
Line = Annotated[str, AfterValidator(_one_line)]


class Slurm(Section):
    """sbatch's options by their names, but for those that follow from a stage's resources.

    gpu_type   of --gpus-per-node: h100 makes h100:8 of 8
    exclude    nodes that no job gets
    setup      lines of the batch script before srun: modules, exports
    srun       further arguments of srun, for example of a container plugin
    python     the interpreter of the jobs, where the one of the submitter is not theirs
    """

    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    reservation: Word | None = None
    gpu_type: Word | None = None
    exclude: Many[Word] = ()
    setup: Many[Line] = ()
    srun: Many[Line] = ()
    python: Annotated[str, Field(min_length=1)] | None = None

    def over(self, general: "Slurm") -> "Slurm":
        """With what it leaves open as `general` has it."""
        return Slurm(**(general.model_dump(exclude_unset=True) | self.model_dump(exclude_unset=True)))
