"""What there is on disk about one Ray cluster of ours: plain files in the store, as everything else.

    <store>/ray/<cluster name>/NNN/
      asked.json     what it was to be, published once: it claims the number
      job.json       which job of Slurm's it is
      head.json      where the first node's GCS and dashboard are
      node-<k>.json  what node k says of itself, replaced at each step
      ray-<k>.log    what `ray start` printed there      node-<k>.log   what the supervisor had to say
      logs-<k>/      the ends of Ray's own logs, of a node that failed
      stop.json      somebody wants it to end
      over.json      how it ended; the first word stands, and every node that sees it ends, too
    <store>/ray/targets/<cluster name>.json    for Prometheus (file_sd): where the numbers of the nodes that are up are

The address that launchers read is elsewhere: <store>/ray/<cluster name>.json (jobs/launchers/ray/record.py).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from jobs import files, typed
from jobs.spec import Cause

T = TypeVar("T")


class Step(StrEnum):
    """How far a node is."""

    STARTING = "STARTING"
    UP = "UP"
    LEAVING = "LEAVING"
    ENDED = "ENDED"
    FAILED = "FAILED"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a cluster was asked for.

    record, token  where the address goes once it is up, and where the token lies
    experiment     for which its allocation was submitted; nothing where a person did it
    cpus, gpus, mem_gb  of each node; None: what the node has for us
    start_s        how long `ray start` may take
    join_s         how long nodes may take to join, from when the head answers
    stop_lead_s    how long jobs have to save when it ends
    interface      the network that nodes talk over; None: that of the machine's own name
    dashboard_port None: a free one
    temp_dir       where the folder for Ray's sockets is made, on each node's own disk
    env            for Ray's daemons
    """

    name: str
    nodes: int
    record: str
    token: str
    experiment: str = ""
    cpus: int | None = None
    gpus: int | None = None
    mem_gb: float | None = None
    start_s: float = 180.0
    join_s: float = 300.0
    stop_lead_s: float = 90.0
    interface: str | None = None
    dashboard_port: int | None = None
    temp_dir: str = "/tmp"  # noqa: S108 - shelter.py looks at owner and mode
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Head:
    """Where the first node answers: its address, and ports there."""

    host: str
    port: int
    dashboard_port: int

    @property
    def address(self) -> str:
        """Of the GCS, as `ray start --address` takes it."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a node says of itself. `process` as processes.unique_id has it; `metrics`: HOST:PORT where Prometheus finds
    its numbers; `words`: of a failure, why.
    """

    number: int
    name: str
    step: Step
    process: str
    host: str = ""
    metrics: str = ""
    words: str = ""


@dataclass(frozen=True, kw_only=True)
class Over:
    """Why a cluster ended; `cause` where it was nobody's wish: SETUP if it was never up, NODE if it was."""

    words: str
    cause: Cause | None = None


@dataclass(frozen=True)
class ClusterFolder:
    """The names in the folder of one cluster."""

    path: Path

    @property
    def asked(self) -> Path:
        """What it was to be."""
        return self.path / "asked.json"

    @property
    def job(self) -> Path:
        """{job_id}: its allocation."""
        return self.path / "job.json"

    @property
    def head(self) -> Path:
        """Where the first node answers."""
        return self.path / "head.json"

    @property
    def stop(self) -> Path:
        """{words}: it is to end."""
        return self.path / "stop.json"

    @property
    def over(self) -> Path:
        """How it ended."""
        return self.path / "over.json"

    @property
    def targets(self) -> Path:
        """Where Prometheus finds the numbers; one file for all clusters of the name, which come one after another. All
        names are in one folder: Prometheus takes a pattern in the last part of a path only.
        """
        clusters = self.path.parent
        return clusters.parent / "targets" / f"{clusters.name}.json"

    def node(self, number: int) -> Path:
        """What a node says of itself."""
        return self.path / f"node-{number}.json"

    def log(self, number: int) -> Path:
        """What the supervisor of a node on this machine printed."""
        return self.path / f"node-{number}.log"

    def ray_log(self, number: int) -> Path:
        """What `ray start` printed on a node."""
        return self.path / f"ray-{number}.log"

    def logs(self, number: int) -> Path:
        """The ends of Ray's own logs on a node."""
        return self.path / f"logs-{number}"

    def reports(self) -> list[Report]:
        """What the nodes say, in order of their numbers."""
        found = (self.path / name for name in files.names(self.path) if re.fullmatch(r"node-\d+\.json", name))
        reports = [report for path in found if (report := load(Report, path)) is not None]
        return sorted(reports, key=lambda report: report.number)


def load(cls: type[T], path: Path) -> T | None:
    """The record at `path`, or None if there is none; ValueError for one that is not of its type."""
    data = files.read(path)
    return None if data is None else typed.build(cls, typed.mapping(data))


def save(path: Path, record: Any) -> None:
    """Replace the record at `path`: a dataclass of this module."""
    files.write(path, _bytes(asdict(record)))


def publish(path: Path, record: Any) -> bool:
    """Make the record unless there is one. True: ours stands."""
    return files.publish(path, _bytes(asdict(record)))


def ask_to_end(folder: ClusterFolder, words: str) -> None:
    """Every node sees it within seconds; the first wish stands."""
    files.publish(folder.stop, _bytes({"words": words}))


def save_targets(folder: ClusterFolder, *, cluster: str, targets: Sequence[str]) -> None:
    """As Prometheus reads it."""
    record = [{"targets": list(targets), "labels": {"cluster": cluster}}]
    files.make_dir(folder.targets.parent)
    files.write(folder.targets, json.dumps(record).encode() + b"\n")


def numbers(clusters: Path) -> list[int]:
    """The numbers of the clusters of one name, ascending."""
    return sorted(int(name) for name in files.names(clusters) if re.fullmatch(r"\d{3,}", name))


def claim(clusters: Path, asked: Asked, *, number: int) -> ClusterFolder | None:
    """A folder for a new cluster, which nobody else may look into; None where somebody has that number already."""
    made = ClusterFolder(clusters / f"{number:03d}")
    clusters.mkdir(exist_ok=True)
    made.path.mkdir(mode=0o700, exist_ok=True)
    return made if publish(made.asked, asked) else None


def newest(clusters: Path) -> tuple[int, ClusterFolder]:
    """The last one that was asked for, and its number: 0 for none."""
    number = max(numbers(clusters), default=0)
    return number, ClusterFolder(clusters / f"{number:03d}")


def _bytes(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True).encode() + b"\n"
