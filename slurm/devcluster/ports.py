"""Free TCP ports of this machine."""

import contextlib
import random
import socket
from pathlib import Path

from slurm.devcluster.errors import DevclusterError

_FIRST = 10_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free(count: int) -> list[int]:
    """`count` ports nobody listens at, below those that the system gives to outgoing connections.

    Chosen at random, so that clusters that start together rarely meet; a daemon that was ended finds its port free
    when it comes back.

    Raises:
        DevclusterError: the range has too few.
    """
    candidates = list(range(_FIRST, _last()))
    random.SystemRandom().shuffle(candidates)
    found: list[int] = []
    for port in candidates:
        if len(found) == count:
            return found
        if is_free(port):
            found.append(port)
    raise DevclusterError(f"only {len(found)} of {count} TCP ports are free from {_FIRST} to {_last()}")


def is_free(port: int) -> bool:
    """Whether nobody listens there, on any address."""
    with contextlib.closing(socket.socket()) as probe:
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - slurmctld binds all addresses; this closes at once
        except OSError:
            return False
    return True


def _last() -> int:
    try:
        return max(int(_RANGE.read_text(encoding="ascii").split()[0]), _FIRST + 1000)
    except OSError:
        return 32_768
