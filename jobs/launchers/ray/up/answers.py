"""What a cluster says of itself, over the HTTP interface of its dashboard, with its token."""

import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs import files, typed

LIMIT_S = 10.0
LARGEST = 64 << 20
MOST_NODES = 10_000


class Silent(RuntimeError):
    """Nobody answers there, or not as Ray does."""


@dataclass(frozen=True)
class Alive:
    """A node of the cluster that lives: `total` by resource, as Ray counts them."""

    name: str
    address: str
    is_head: bool
    total: Mapping[str, float] = field(default_factory=dict)


def alive(dashboard: str, token: Path) -> list[Alive]:
    """The nodes that live, by the GCS, which the dashboard at `http://host:port` asks."""
    answer = get(f"{dashboard}/api/v0/nodes?limit={MOST_NODES}&detail=1", token)
    try:
        rows = answer["data"]["result"]["result"]
        return [
            Alive(row["node_name"], row["node_ip"], bool(row["is_head_node"]), row.get("resources_total") or {})
            for row in rows
            if row["state"] == "ALIVE"
        ]
    except (KeyError, TypeError) as error:
        raise Silent(f"{dashboard}: no list of nodes in the answer: {error!r}") from error


def get(url: str, token: Path) -> dict[str, Any]:
    """One answer; Silent for everything else."""
    try:
        secret = (files.read(token) or b"").decode("ascii").strip()
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {secret}"})  # noqa: S310 - ours
        # A proxy of the site's knows nothing of 127.0.0.1.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=LIMIT_S) as stream:
            return typed.mapping(stream.read(LARGEST))
    except (OSError, ValueError) as error:
        raise Silent(f"{url}: {error}") from error
