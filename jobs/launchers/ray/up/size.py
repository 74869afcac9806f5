"""How much of a node is Ray's to give: what Slurm, the cgroup and the machine leave us. Standard library only.

memory of ours = the least of the cgroup's limit, Slurm's --mem and the machine's
               = Ray's own daemons + the object store + what jobs may ask for
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from jobs import memory, slots

# Nothing of ours goes through the object store; Ray takes no less than 75 MB.
OBJECT_STORE_BYTES = 80 * 10**6
DAEMONS_GB = 0.5  # raylet and its agents
HEAD_GB = 1.0  # GCS, dashboard and Ray Client, besides


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a node offers to jobs, and its object store."""

    cpus: int
    gpus: int
    memory_bytes: int
    object_store_bytes: int = OBJECT_STORE_BYTES


class TooSmall(ValueError):
    """A node with less memory than Ray itself takes."""


def of(
    *, cpus: int | None, gpus: int | None, mem_gb: float | None, head: bool, environment: Mapping[str, str] = os.environ
) -> Size:
    """The node's size; what is None is what the node has for us. TooSmall where nothing would be left for jobs."""
    total = (mem_gb or _memory_gb(environment)) * 2**30
    own = (DAEMONS_GB + (HEAD_GB if head else 0.0)) * 2**30
    left = int(total - own - OBJECT_STORE_BYTES)
    if left <= 0:
        raise TooSmall(f"{total / 2**30:.1f} GB of memory, of which Ray itself takes {own / 2**30:.1f}")
    return Size(
        cpus=_cores(environment) if cpus is None else cpus,
        gpus=len(slots.gpus()) if gpus is None else gpus,
        memory_bytes=left,
    )


def _cores(environment: Mapping[str, str]) -> int:
    """Slurm's number where it says one: without task/cgroup nothing else tells."""
    here = slots.cores()
    told = environment.get("SLURM_CPUS_ON_NODE", "")
    return min(here, int(told)) if told.isdecimal() and int(told) > 0 else here


def _memory_gb(environment: Mapping[str, str]) -> float:
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30]
    if (limit := memory.limit_gb()) is not None:
        found.append(limit)
    with suppress(KeyError, ValueError):  # in MB; 0: all of the node's
        found.append(int(environment["SLURM_MEM_PER_NODE"]) / 1024 or found[0])
    return min(found)
