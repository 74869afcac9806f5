"""The Ray cluster that jobs go to, one that somebody else keeps up or one of our own, and the defaults of a cluster
file whose launcher it is.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from stx.config.schema import Many, Positive, Problem, Section, choice, refusal, refusals
from stx.config.seconds import Seconds
from stx.config.slurm import Word

# Jobs start within a second there, and are told apart by priority here: few of them wait in Ray at a time.
DEFAULTS: Mapping[str, Any] = {
    "coordinator": {"where": "detached"},
    "poll_s": 0.5,
    "lease_s": 60.0,
    "checkpoint": {"every_s": 600.0},
    "limits": {"queued": 4},
}
THEIRS = frozenset({"address", "token", "via"})
SLURM_ONLY = ("time", "allocations")


def _host_and_port(value: str) -> str:
    """`auto` and the like take whatever cluster they find first on this machine."""
    if not re.fullmatch(r"[\w.-]+:[0-9]{1,5}|\[[0-9a-f:]+\]:[0-9]{1,5}", value):
        raise refusal(
            "is no address", "HOST:PORT of the cluster's head, as `ray start --head` printed it: 10.0.0.7:6379"
        )
    return value


def _absolute(value: str) -> str:
    if not value.startswith("/"):
        raise refusal("is relative", "an absolute path, on the machine where it is used")
    return value


Absolute = Annotated[str, AfterValidator(_absolute)]


class Ray(Section):
    """An existing cluster:

    address   of its head
    token     the file with its token, where that is neither in $RAY_AUTH_TOKEN_PATH nor at Ray's own place
    via       the command through which the driver is started on a node of it, where the coordinator's machine is none:
              [ssh, head]. Both see the same store, Python and sources

    Without an address, one of our own:

    where           local: its nodes are processes of this machine; slurm: tasks of one allocation, a node each
    nodes           how many there are
    cpus_per_node, gpus_per_node, mem_gb  of each; else all that the machine has (local; several nodes there divide it,
                    and have no GPUs), or whole nodes without GPUs
    time            the allocation's limit
    allocations     how many a coordinator asks for, one after another, while stages wait
    join_s          how long nodes may take to join
    interface       the network that nodes talk over; else that of the machine's own name
    dashboard_port  else a free one
    temp_dir        on each node's own disk: the folder for Ray's sockets is made there
    prometheus, grafana  their URLs, for the time series in the dashboard
    """

    address: Annotated[str, AfterValidator(_host_and_port)] | None = None
    token: Absolute | None = None
    via: Many[Word] = ()
    where: Annotated[str, choice("local", "slurm")] = "local"
    nodes: Positive = 1
    cpus_per_node: Positive | None = None
    gpus_per_node: Annotated[int, Field(ge=0)] | None = None
    mem_gb: float | None = Field(default=None, gt=0)
    time: Seconds = 86400.0
    allocations: Positive = 10
    join_s: Seconds = 300.0
    interface: Word | None = None
    dashboard_port: Annotated[int, Field(ge=1024, le=65535)] | None = None
    temp_dir: Absolute = "/tmp"  # noqa: S108 - owner and mode of what is made there are looked at
    prometheus: Word | None = None
    grafana: Word | None = None

    @model_validator(mode="after")
    def _used(self) -> "Ray":
        if found := [*self._useless()]:
            raise refusals(found)
        return self

    def _useless(self) -> Iterator[Problem]:
        """What is said in vain."""
        theirs = self.model_fields_set & THEIRS
        if self.address is not None:
            for name in sorted(self.model_fields_set - THEIRS):
                hint = "remove it, or ray.address: without one, stx brings up a cluster of its own"
                yield Problem((name,), "has no effect beside address", hint)
            return
        for name in sorted(theirs):
            hint = "a cluster of our own has its own; or give the address of an existing one"
            yield Problem((name,), "has no effect without address", hint)
        if self.where != "slurm":
            for name in SLURM_ONLY:
                if name in self.model_fields_set:
                    yield Problem((name,), "has no effect with where: local", "remove it, or say where: slurm")
            if self.nodes > 1 and self.gpus_per_node:
                what = f"{self.nodes} nodes on one machine would take the same GPUs"
                yield Problem(("gpus_per_node",), what, "nodes: 1; or 0, where no stage needs any")
