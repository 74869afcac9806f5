"""Helper jobs: small jobs of one core beside those of stages. A coordinator may live in one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from jobs.spec import Observation


@dataclass(frozen=True)
class HelperJob:
    """One core of one node. The scheduler may start it again after it took its node away.

    scheduler     what the cluster file asks of it: partition, account, qos, constraint, reservation, exclude, setup
    lead_s        so long before its end it gets USR2
    one_by_one    starts when no job of its name runs any more
    after         ids of jobs: starts when the first of them has ended
    delay_s       starts no sooner
    """

    name: str
    argv: tuple[str, ...]
    cwd: Path
    log: Path
    mem_gb: float
    time_s: float
    env: Mapping[str, str] = field(default_factory=dict)
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    lead_s: float = 0.0
    one_by_one: bool = False
    after: tuple[str, ...] = ()
    delay_s: float = 0.0


class Helpers(Protocol):
    """What a scheduler does with helper jobs; Refused where it does not."""

    def longest_s(self, partition: str | None) -> float | None:
        """The longest time that a job may ask for there; None where there is no limit, or no scheduler in sight."""

    def refusal(self, job: HelperJob) -> str | None:
        """Why it could never run."""

    def whole_nodes(self, partition: str | None) -> str:
        """How it is known that every job there gets nodes of its own; nothing where they are shared."""

    def render(self, job: HelperJob) -> str:
        """The exact request; pure."""

    def submit(self, job: HelperJob) -> str:
        """The id of the job."""

    def found(self, name: str) -> dict[str, Observation]:
        """The own user's jobs of this name that wait or run, by id, oldest first."""

    def cancel_waiting(self, job_ids: Sequence[str]) -> None:
        """Those of them that did not start."""
