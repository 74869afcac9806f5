"""Where the Ray cluster of our own answers that is up now: <store>/ray/<cluster name>.json. Standard library only.

Its first node writes it when all nodes are there, and removes it when the cluster ends; the next cluster of the same
name writes it anew. Launchers read it whenever they connect.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from jobs import files, typed


@dataclass(frozen=True, kw_only=True)
class Record:
    """One cluster that is up.

    address    of the GCS, HOST:PORT
    token      the file with its token
    dashboard  its URL on the first node
    tunnel     the command that makes the same URL work elsewhere; nothing where that is this machine
    nodes      how many were counted before this was written
    keeper     who keeps it up: the supervisor's processes.unique_id, or slurm:<job id>
    via        the command through which a program runs on the first node; nothing where that is this machine
    """

    address: str
    token: str
    dashboard: str
    tunnel: str
    nodes: int
    keeper: str
    via: tuple[str, ...] = ()


def read(path: Path) -> Record | None:
    """None where no cluster is up."""
    data = files.read(path)
    return None if data is None else typed.build(Record, typed.mapping(data))


def write(path: Path, record: Record) -> None:
    """Replace it."""
    files.write(path, json.dumps(asdict(record), sort_keys=True).encode() + b"\n")
