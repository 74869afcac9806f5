"""Which node of a cluster a supervisor is.

    --slurm <folder>                    a task of the allocation, one per node; the first one is the head
    --node <number> <name> <folder>     a process of this machine; number 0 is the head

Standard library only.
"""

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs import processes, rendezvous
from jobs.launchers.ray.up.folder import Head

REACH_S = 5.0


@dataclass(frozen=True)
class Place:
    """`keeper` and `via` are, on the head, what the address record says of the cluster (record.py); `host` is what ssh
    calls the machine.
    """

    number: int
    name: str
    keeper: str
    host: str = ""
    via: tuple[str, ...] = ()

    @property
    def is_head(self) -> bool:
        """Whether Ray's GCS and dashboard run here."""
        return self.number == 0


class NoAddress(RuntimeError):
    """No address that the other nodes could use."""


def of(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> tuple[Place, Path]:
    """What the command line says, and the folder of the cluster."""
    folder = Path(arguments[-1])
    if arguments[0] == "--slurm":
        return _of_task(environment), folder
    assert arguments[0] == "--node", "stx starts this, and says which node it is"
    return Place(int(arguments[1]), arguments[2], processes.unique_id(processes.me())), folder


def _of_task(environment: Mapping[str, str]) -> Place:
    """A program of ours runs beside it as one more step of the same job."""
    host, job_id = os.uname().nodename, environment["SLURM_JOB_ID"]
    node = environment.get("SLURMD_NODENAME") or host
    step = ("--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={node}", "--cpu-bind=none", "--mem=0", "--quiet")
    return Place(
        int(environment["SLURM_PROCID"]),
        node,
        keeper=f"slurm:{job_id}",
        host=host,
        via=("srun", f"--jobid={job_id}", *step),
    )


def address(*, interface: str | None, head: Head | None) -> str:
    """This node's address: of the interface that was named, else of the one that leads to the head; the head's own is
    the first of the machine's name. NoAddress where there is none, or the head cannot be reached.
    """
    there = rendezvous.addresses()
    if interface is not None:
        found = next((one for name, one in there if name == interface), None)
        if found is None:
            known = ", ".join(f"{name} ({one})" for name, one in there)
            raise NoAddress(f"ray: {{interface: {interface}}} has no address here; there are {known}")
        return found
    if head is None:
        return there[0][1]
    try:
        with socket.create_connection((head.host, head.port), timeout=REACH_S) as line:
            return str(line.getsockname()[0])
    except OSError as error:
        hint = "where nodes have several networks, say ray: {interface: NAME}"
        raise NoAddress(f"the head is at {head.address}, which cannot be reached from here: {error}; {hint}") from error
