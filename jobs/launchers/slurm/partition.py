"""A partition of this site's Slurm: how long a job may run there, and how it is taken away. Parsing is pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from jobs.launchers.slurm import commands, site
from jobs.launchers.slurm.site import Site

ENDING = frozenset({"REQUEUE", "CANCEL"})


@dataclass(frozen=True)
class Partition:
    """`preempt` is what happens to its jobs when others need the nodes: OFF, REQUEUE, CANCEL, SUSPEND; `grace_s` the
    time between the signal and TERM or KILL; `time_s` its limit, None without one; `whole` that every job gets nodes
    for itself.
    """

    name: str
    default: bool
    up: bool
    preempt: str
    grace_s: float
    time_s: float | None
    whole: bool
    nodes: int

    @property
    def preempted(self) -> bool:
        """Whether its jobs may lose their nodes to others."""
        return self.preempt != "OFF"


def ask(there: Site) -> list[Partition]:
    """All that this user may see."""
    return parse(commands.run(["scontrol", "--oneliner", "show", "partition"]), there)


def parse(text: str, there: Site) -> list[Partition]:
    """Lines of `scontrol --oneliner show partition`; the site says what they leave open."""
    return [_partition(words, there) for words in site.parse_partitions(text)]


def _partition(words: Mapping[str, str], there: Site) -> Partition:
    nodes = words.get("TotalNodes", "")
    return Partition(
        name=words["PartitionName"],
        default=words.get("Default") == "YES",
        up=words.get("State") == "UP",
        preempt=_preempt(words, there),
        grace_s=float(site.seconds_of(words.get("GraceTime", "")) or _number(words.get("GraceTime", ""))),
        time_s=site.seconds_of(words.get("MaxTime", "")),
        whole=words.get("OverSubscribe") == "EXCLUSIVE" or there.values.get("SelectType") == "select/linear",
        nodes=int(_number(nodes)),
    )


def _preempt(words: Mapping[str, str], there: Site) -> str:
    """The partition's own word, else the site's; OFF where nothing is ever preempted."""
    if there.values.get("PreemptType", "preempt/none") in ("preempt/none", "(null)"):
        return "OFF"
    said = (words.get("PreemptMode") or there.values.get("PreemptMode", "OFF")).upper().split(",")
    return next((word for word in said if word not in ("GANG", "WITHIN")), "OFF")


def _number(text: str) -> float:
    return float(text) if text.isdecimal() else 0.0
