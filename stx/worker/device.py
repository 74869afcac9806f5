"""The one device of a rank: the launcher shows a rank exactly its GPU, so it is cuda:0 or the CPU.

A scheduler's GPUs may have guests: what an earlier job left behind, or somebody who went past the scheduler. A GPU on
which more than 5% of the memory, beyond 1 GiB for our own context, stays taken for 10 s is none to train on (NODE).
Without a scheduler nothing is looked at: the GPU of a workstation also has a screen.
"""

import os
import time

import torch

from stx.worker.attempt import BadNode

OWN_BYTES = 1 << 30  # CUDA's context: 0.5 GiB and more, by GPU and driver
FOREIGN_SHARE = 0.05
GONE_WITHIN_S = 10.0  # an ended process gives its memory back late


def device() -> torch.device:
    """cuda:0 where one is visible, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def check_guests() -> None:
    """BadNode where others use the memory of a GPU of this rank; $STX_NODE is what the scheduler calls this node."""
    until = time.monotonic() + GONE_WITHIN_S
    while (words := _guests()) and time.monotonic() < until:
        time.sleep(1.0)
    if words:
        raise BadNode(f"{os.environ.get('STX_NODE', '')}: {words}")


def _guests() -> str | None:
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(number)
        if words := foreign(free, total, ours=torch.cuda.memory_reserved(number)):
            return f"GPU {number} of this rank: {words}"
    return None


def foreign(free: int, total: int, *, ours: int = 0) -> str | None:
    """What others have of a GPU's memory, in bytes all, if it is too much."""
    theirs = total - free - ours - OWN_BYTES
    if theirs <= FOREIGN_SHARE * total:
        return None
    return f"others use {theirs / 2**30:.1f} GiB or more of its {total / 2**30:.1f} GiB of memory"
