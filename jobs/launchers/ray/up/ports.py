"""Ports for Ray's daemons: looked for on this node, below those that the system gives to outgoing connections.

Between the look and Ray's own bind another process may take one: then `ray start` fails, `taken` names the port, and
the node tries with others.
"""

import contextlib
import random
import socket
from collections.abc import Sequence
from pathlib import Path

FIRST = 10_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


class NoPorts(RuntimeError):
    """Too few ports are free."""


def free(count: int, *, of: Sequence[int] | None = None) -> list[int]:
    """`count` ports nobody listens at, chosen at random: clusters that start together rarely meet. `of` these."""
    candidates = list(range(FIRST, _last()) if of is None else of)
    random.SystemRandom().shuffle(candidates)
    found: list[int] = []
    for port in candidates:
        if len(found) == count:
            break
        if is_free(port):
            found.append(port)
    if len(found) < count:
        between = f"from {min(candidates)} to {max(candidates)}"
        raise NoPorts(f"only {len(found)} of {count} ports are free on this node {between}")
    return found


def is_free(port: int) -> bool:
    """Whether nobody listens there, on any address."""
    with contextlib.closing(socket.socket()) as probe:
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - Ray binds all addresses; this closes at once
        except OSError:
            return False
    return True


def taken(wanted: Sequence[int]) -> list[int]:
    """Those of them that somebody has."""
    return [port for port in wanted if not is_free(port)]


def _last() -> int:
    try:
        return max(int(_EPHEMERAL.read_text(encoding="ascii").split()[0]), FIRST + 1000)
    except (OSError, ValueError):
        return 32_768
