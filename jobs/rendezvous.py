"""Where the ranks of a job meet: rank 0 binds a free port and publishes it in the attempt. Standard library only.

Several nodes: rank 0 listens on every interface and publishes all its addresses, and each rank takes the first that it
can reach. A cluster's login, storage and fabric networks are different ones, and a node's name may resolve to
127.0.1.1, or not at all.
"""

import contextlib
import fcntl
import json
import os
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs import files, typed
from jobs.files import AttemptDir

REACH_S = 5.0
_SIOCGIFFLAGS, _SIOCGIFADDR = 0x8913, 0x8915  # netdevice(7)
_UP, _LOOPBACK = 0x1, 0x8
_VIRTUAL = ("docker", "veth", "br-", "virbr", "cni", "flannel")


class NoRendezvous(TimeoutError):
    """Rank 0 did not come, or cannot be reached."""


@dataclass(frozen=True)
class Rendezvous:
    """Where the ranks meet. `listen_fd` is rank 0's bound, listening socket, None on the others; `interface` the name
    of the network interface that this rank reaches it by.
    """

    host: str
    port: int
    listen_fd: int | None
    interface: str


def rendezvous(attempt_dir: Path, *, timeout_s: float = 600.0) -> Rendezvous:
    """Rank 0 binds a free port and publishes it, the others wait for it; all get MASTER_ADDR and MASTER_PORT.

    Rank 0 gives the descriptor to torch's TCPStore as `master_listen_fd`, so between the choice of a port and its use
    no other process can take it. A port derived from a job id would collide.
    """
    path = AttemptDir(attempt_dir).rendezvous
    if os.environ.get("RANK", "0") == "0":
        found = _bind(path)
    else:
        found = _meet(path, deadline=time.monotonic() + timeout_s, timeout_s=timeout_s)
    os.environ.update(MASTER_ADDR=found.host, MASTER_PORT=str(found.port))
    return found


def addresses() -> list[tuple[str, str]]:
    """Interface and IPv4 address of every network this machine is on, its own name's first; the loopback where there is
    no other.
    """
    found = [(name, address) for _, name in socket.if_nameindex() if (address := _address(name)) is not None]
    own: set[str] = set()
    with contextlib.suppress(OSError):
        own = {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    return sorted(found, key=lambda one: one[1] not in own) or [("lo", "127.0.0.1")]


def _address(interface: str) -> str | None:
    """None where it is down, leads nowhere, or has no IPv4 address."""
    request = struct.pack("256s", interface.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        (flags,) = struct.unpack_from("H", fcntl.ioctl(probe, _SIOCGIFFLAGS, request), 16)
        if flags & _UP and not flags & _LOOPBACK and not interface.startswith(_VIRTUAL):
            return socket.inet_ntoa(fcntl.ioctl(probe, _SIOCGIFADDR, request)[20:24])
    return None


def _bind(path: Path) -> Rendezvous:
    """Listen: on the loopback interface where all ranks are on this machine."""
    one_node = os.environ.get("LOCAL_WORLD_SIZE", "1") == os.environ.get("WORLD_SIZE", "1")
    places = [("lo", "127.0.0.1")] if one_node else addresses()
    with contextlib.closing(socket.create_server(("127.0.0.1" if one_node else "", 0), backlog=1024)) as server:
        port = server.getsockname()[1]
        record = {"hosts": [address for _, address in places], "port": port}
        if not files.publish(path, json.dumps(record).encode() + b"\n"):
            raise FileExistsError(f"{path}: another rank 0 has published its port in this attempt")
        return Rendezvous(places[0][1], port, server.detach(), interface=places[0][0])


def _meet(path: Path, *, deadline: float, timeout_s: float) -> Rendezvous:
    while (data := files.read(path)) is None:
        if time.monotonic() > deadline:
            raise NoRendezvous(f"{path}: rank 0 did not publish its port within {timeout_s:g} s")
        time.sleep(0.05)
    record = typed.mapping(data)
    hosts, port = typed.matching(list[str], record["hosts"]), typed.matching(int, record["port"])
    for host in hosts:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=REACH_S) as line:
            return Rendezvous(host, port, None, interface=_interface_of(line.getsockname()[0], addresses()))
    raise NoRendezvous(f"rank 0 listens on port {port} of {', '.join(hosts)}, and none of them answers here")


def _interface_of(address: str, there: Sequence[tuple[str, str]]) -> str:
    return next((name for name, own in there if own == address), "lo")
