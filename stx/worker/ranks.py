"""The W ranks of an attempt as one value, and the few things they tell each other besides gradients.

Small facts travel as canonical JSON in byte tensors (no pickle). One rank alone needs no network: its process group
lives in a HashStore.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from jobs.rendezvous import rendezvous
from stx import records
from stx.worker.attempt import Attempt, Yielded
from stx.worker.device import device


@dataclass(frozen=True)
class Ranks:
    """Who we are among how many. With size 1 every method is free and needs no process group."""

    rank: int
    size: int
    device: torch.device

    def gather(self, value: Any) -> list[Any]:
        """The JSON values of all ranks, by rank, on all ranks."""
        if self.size == 1:
            return [value]
        data = torch.frombuffer(bytearray(records.dumps(value)), dtype=torch.uint8).to(self.device)
        length = torch.tensor([data.numel()], device=self.device)
        lengths = [torch.zeros_like(length) for _ in range(self.size)]
        dist.all_gather(lengths, length)
        longest = max(int(one) for one in lengths)
        padded = torch.nn.functional.pad(data, (0, longest - data.numel()))
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return [json.loads(bytes(part[: int(one)].tolist())) for part, one in zip(parts, lengths, strict=True)]

    def agree(self, value: Any) -> Any:
        """Rank 0's JSON value, on all ranks."""
        return self.gather(value if self.rank == 0 else None)[0]

    def sum(self, vector: Tensor) -> Tensor:
        """The sum over ranks, in place."""
        if self.size > 1:
            dist.all_reduce(vector)
        return vector


ALONE = Ranks(rank=0, size=1, device=torch.device("cpu"))


@contextlib.contextmanager
def process_group(attempt: Attempt) -> Iterator[Ranks]:
    """A torch process group over the ranks of `attempt` (DeepSpeed wants one at any size).

    A process that has one already keeps it: DeepSpeed cannot change its group.
    """
    ranks = Ranks(rank=attempt.rank, size=attempt.world_size, device=device())
    if dist.is_initialized():
        assert dist.get_world_size() == ranks.size, "this process belongs to a group of another size"
        yield ranks
        return
    backend = "cpu:gloo,cuda:nccl" if ranks.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=_store(attempt), rank=ranks.rank, world_size=ranks.size)
    try:
        yield ranks
    except Yielded:
        dist.destroy_process_group()
        raise
    # After a failure the group is left to the end of the process: another rank may hang in it, the outcome must not.
    dist.destroy_process_group()


def _store(attempt: Attempt) -> dist.Store:
    """Where the ranks find each other."""
    if attempt.world_size == 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        return dist.HashStore()
    meeting = rendezvous(attempt.folder.path)
    # Without it gloo resolves the host's name, which containers, laptops and some clusters cannot.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", meeting.interface)
    listen = {} if meeting.listen_fd is None else {"master_listen_fd": meeting.listen_fd}
    return dist.TCPStore(meeting.host, meeting.port, attempt.world_size, is_master=attempt.rank == 0, **listen)
