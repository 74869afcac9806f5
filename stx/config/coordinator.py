"""Where the coordinator lives: one section of the cluster file. docs/cluster.md says what each of them is good for."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from stx.config.schema import Problem, Section, choice, refusal
from stx.config.seconds import Seconds
from stx.config.slurm import Slurm, Word

IN_JOBS = ("job", "chain")
SHORTEST_S = 60.0


def _long_enough(value: float) -> float:
    if value < SHORTEST_S:
        raise refusal("is too short for a coordinator", f"at least {SHORTEST_S:g} s: Slurm counts minutes")
    return value


class Coordinator(Section):
    """`where`, and what its job asks for, where it lives in one.

    foreground   the process of `stx submit`
    detached     a process of its own on the same machine
    job          a job of one core that goes on in another one before its time is over
    chain        no process: a job of one core looks once whenever a stage's job has ended
    cron         no process: a line of a crontab looks once every few minutes

    partition, account and qos are else the slurm section's; the shortest of 7 days (30 minutes for a link of a chain)
    and what the partition allows is the time.
    """

    where: Annotated[str, choice("foreground", "detached", "job", "cron", "chain")] = "foreground"
    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    time: Annotated[Seconds, AfterValidator(_long_enough)] | None = None
    mem_gb: float | None = Field(default=None, gt=0)
    allow_whole_nodes: bool = False

    def useless(self, launcher: str) -> Iterator[Problem]:
        """What is said in vain."""
        if self.where in IN_JOBS:
            if launcher != "slurm":
                hint = "say launcher: slurm, or where: foreground, detached or cron"
                yield Problem(("coordinator", "where"), f"has no effect with launcher: {launcher}", hint)
            return
        for name, value in self:
            if name != "where" and value not in (None, False):
                hint = "remove it, or say where: job or chain"
                yield Problem(("coordinator", name), f"has no effect with where: {self.where}", hint)

    def asked(self, general: Slurm) -> dict[str, Any]:
        """What its job asks of the scheduler: its own words, else those of the slurm section that suit any job."""
        shared = general.model_dump(mode="json", exclude={"gpu_type", "srun", "python"})
        own = {"partition": self.partition, "account": self.account, "qos": self.qos}
        if self.partition not in (None, general.partition):  # these are about nodes of the other one
            shared |= {"constraint": None, "reservation": None}
        return shared | {name: value for name, value in own.items() if value is not None}
