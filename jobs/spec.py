"""What the job layer is asked to run and what it can say about it. It knows nothing of diffusion.

A job is `python -m jobs.exec <attempt dir>` once per rank (local: once per job), on resources that a launcher obtains.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from jobs import typed


@dataclass(frozen=True)
class Resources:
    """What one job asks for: whole CPUs and GPUs per rank, memory per node; `time_s` is the wall-clock limit.
    `partition` is the part of the cluster that it goes to; None: where its scheduler puts it.
    """

    nodes: int = 1
    ranks_per_node: int = 1
    cpus_per_rank: int = 1
    gpus_per_rank: int = 0
    mem_gb: float = 4.0
    time_s: float = 3600.0
    partition: str | None = None

    @property
    def ranks(self) -> int:
        """World size."""
        return self.nodes * self.ranks_per_node


@dataclass(frozen=True)
class JobSpec:
    """One attempt as a job. `argv` is the rank's program (not jobs.exec); `env` is added to the launcher's.

    start_limit_s   how long a rank may take until its watchdog stands (jobs/hangs.py); None for ranks without one
    scheduler       what only its launcher understands: account, qos and the like
    avoid           nodes that it must not get
    """

    tag: str
    argv: tuple[str, ...]
    attempt_dir: Path
    cwd: Path
    resources: Resources
    env: Mapping[str, str] = field(default_factory=dict)
    stop_lead_s: float = 90.0
    start_limit_s: float | None = None
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    avoid: tuple[str, ...] = ()

    def check(self) -> None:
        """ValueError for what no launcher can start."""
        if not self.attempt_dir.is_absolute():
            raise ValueError(f"{self.attempt_dir}: an attempt directory is found again by its absolute path")
        if self.stop_lead_s >= self.resources.time_s:
            what = f"a stop {self.stop_lead_s:g} s before the time limit"
            raise ValueError(f"{what} leaves nothing of its {self.resources.time_s:g} s")

    def dump(self) -> dict[str, Any]:
        """Its JSON, part of the intent file."""
        return asdict(self) | {
            "attempt_dir": str(self.attempt_dir),
            "cwd": str(self.cwd),
            "argv": list(self.argv),
            "env": dict(self.env),
            "scheduler": dict(self.scheduler),
            "avoid": list(self.avoid),
        }

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> "JobSpec":
        """The inverse of `dump`."""
        return typed.build(cls, record)


class JobState(StrEnum):
    """What a scheduler says. UNKNOWN is never a verdict."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    ENDED = "ENDED"
    UNKNOWN = "UNKNOWN"


class Result(StrEnum):
    """What a rank says of its attempt in outcome-<rank>.json."""

    COMPLETED = "COMPLETED"
    YIELDED = "YIELDED"
    FAILED = "FAILED"


class Cause(StrEnum):
    """Why an attempt FAILED, or LOST when it left no outcome. Earlier ones win when ranks disagree.

    TIMEOUT and PREEMPT are a scheduler's words of one that left no outcome: its time was over, or its nodes were taken
    away, before it could save.
    """

    OOM = "OOM"
    NO_SPACE = "NO_SPACE"
    NAN = "NAN"
    NODE = "NODE"
    SETUP = "SETUP"
    USER = "USER"
    HANG = "HANG"
    TIMEOUT = "TIMEOUT"
    LOST = "LOST"
    PREEMPT = "PREEMPT"


@dataclass(frozen=True)
class Handle:
    """What a launcher needs to find a job again: its own id, and the tag it was submitted under."""

    tag: str
    job_id: str

    def dump(self) -> dict[str, Any]:
        """Its JSON, handle.json."""
        return asdict(self)

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> "Handle":
        """The inverse of `dump`."""
        return typed.build(cls, record)


@dataclass(frozen=True)
class Observation:
    """What one poll saw of a job: the scheduler's state and its own words for it; of one that ENDED the cause, where
    the scheduler knows one, and for the cause NODE which nodes `failed`; of one that waits when it may `start`, of one
    that runs its `nodes`, as the scheduler writes both.
    """

    state: JobState
    detail: str = ""
    cause: Cause | None = None
    nodes: str = ""
    start: str = ""
    failed: tuple[str, ...] = ()
