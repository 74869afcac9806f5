"""The Ray cluster that jobs go to, and the defaults of a cluster file whose launcher it is."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

from stx.config.schema import Many, Section, refusal
from stx.config.slurm import Word

# Jobs start within a second there, and are told apart by priority here: few of them wait in Ray at a time.
DEFAULTS: Mapping[str, Any] = {
    "coordinator": {"where": "detached"},
    "poll_s": 0.5,
    "lease_s": 60.0,
    "checkpoint": {"every_s": 600.0},
    "limits": {"queued": 4},
}


def _host_and_port(value: str) -> str:
    """`auto` and the like take whatever cluster they find first on this machine."""
    if not re.fullmatch(r"[\w.-]+:[0-9]{1,5}|\[[0-9a-f:]+\]:[0-9]{1,5}", value):
        raise refusal(
            "is no address", "HOST:PORT of the cluster's head, as `ray start --head` printed it: 10.0.0.7:6379"
        )
    return value


def _absolute(value: str) -> str:
    if not value.startswith("/"):
        raise refusal("is relative", "an absolute path, on the machine where the driver runs")
    return value


class Ray(Section):
    """An existing cluster.

    address   of its head
    token     the file with its token, where that is neither in $RAY_AUTH_TOKEN_PATH nor at Ray's own place
    via       the command through which the driver is started on a node of it, where the coordinator's machine is none:
              [ssh, head]. Both see the same store, Python and sources
    """

    address: Annotated[str, AfterValidator(_host_and_port)] | None = None
    token: Annotated[str, AfterValidator(_absolute)] | None = None
    via: Many[Word] = ()
