"""Ranks find each other on the socket that rank 0 bound, on one machine and across interfaces."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import contract, rendezvous
from jobs.files import AttemptDir
from jobs.rendezvous import NoRendezvous, Rendezvous

ROOT = str(Path(rendezvous.__file__).parent.parent)


@pytest.fixture
def ranks(monkeypatch):
    """Become a rank of a job: its number, how many there are, how many on this node."""
    monkeypatch.setenv("MASTER_ADDR", "")
    monkeypatch.setenv("MASTER_PORT", "")

    def become(rank, size=1, local=1):
        for name, value in {"RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": local}.items():
            monkeypatch.setenv(name, str(value))

    return become


def test_rank_0s_port_is_bound_from_its_choice_on(tmp_path, ranks):
    ranks(0)
    place = rendezvous.rendezvous(tmp_path)
    assert place.listen_fd is not None
    assert os.environ["MASTER_PORT"] == str(place.port)
    with pytest.raises(OSError, match="in use"):
        socket.create_server((place.host, place.port), reuse_port=False)
    ranks(1)
    assert rendezvous.rendezvous(tmp_path) == Rendezvous("127.0.0.1", place.port, None, "lo")
    os.close(place.listen_fd)


def test_a_rendezvous_without_rank_0_ends_in_an_error_that_says_so(tmp_path, ranks):
    ranks(1)
    with pytest.raises(TimeoutError, match=r"rendezvous\.json: rank 0 did not publish its port within 0\.1 s"):
        rendezvous.rendezvous(tmp_path, timeout_s=0.1)


def test_several_nodes_meet_on_an_address_that_others_can_reach(tmp_path, ranks):
    ranks(0, size=2)
    place = rendezvous.rendezvous(tmp_path)
    published = json.loads(AttemptDir(tmp_path).rendezvous.read_text())
    assert published["hosts"] == [address for _, address in rendezvous.addresses()]
    assert "127.0.0.1" not in published["hosts"] or len(published["hosts"]) == 1
    ranks(1, size=2)
    assert rendezvous.rendezvous(tmp_path).port == place.port
    os.close(place.listen_fd)


def test_the_first_address_that_answers_is_taken(tmp_path, ranks, monkeypatch):
    monkeypatch.setattr(rendezvous, "REACH_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        record = {"hosts": ["203.0.113.1", "127.0.0.1"], "port": port}
        AttemptDir(tmp_path).rendezvous.write_text(json.dumps(record))
        ranks(1, size=2)
        assert rendezvous.rendezvous(tmp_path).host == "127.0.0.1"
    AttemptDir(tmp_path).rendezvous.write_text(json.dumps(record))
    with pytest.raises(NoRendezvous, match=r"port \d+ of 203\.0\.113\.1, 127\.0\.0\.1, and none of them answers"):
        rendezvous.rendezvous(tmp_path)


MEET = """
import sys, torch, torch.distributed as dist
from pathlib import Path
from jobs.rendezvous import rendezvous
rank, size = int(sys.argv[2]), 2
place = rendezvous(Path(sys.argv[1]))
store = dist.TCPStore(place.host, place.port, size, is_master=rank == 0, master_listen_fd=place.listen_fd)
import os; os.environ["GLOO_SOCKET_IFNAME"] = place.interface
dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
total = torch.tensor(rank + 1)
dist.all_reduce(total)
print(total.item())
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("local", [1, 2], ids=["two nodes", "one node"])
def test_torch_meets_on_the_socket_that_rank_0_bound(tmp_path, local):
    def start(rank):
        numbers = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": str(local)}
        return subprocess.Popen(
            [sys.executable, "-P", "-c", MEET, str(tmp_path), str(rank)],
            env={**os.environ, "PYTHONPATH": ROOT, **numbers}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    processes = [start(rank) for rank in range(2)]
    assert [one.communicate(timeout=contract.PATIENCE_S)[0].split()[-1] for one in processes] == ["3", "3"]
