"""What this site's Slurm is like: `scontrol show config` and `sinfo`, read once. Parsing is pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.launchers.slurm import commands
from jobs.spec import Resources

NODE_FIELDS = "%P|%D|%c|%m|%G|%l"


@dataclass(frozen=True)
class Site:
    """The controller's configuration, by key."""

    values: Mapping[str, str]

    @property
    def identity(self) -> str:
        """Cluster and controller."""
        host = re.sub(r"\(.*", "", self.values.get("SlurmctldHost[0]", ""))
        return f"slurm:{self.values.get('ClusterName', '')}@{host}:{self.values.get('SlurmctldPort', '')}"

    def flags(self, key: str) -> frozenset[str]:
        """A value that is a list with commas: names without what they are set to."""
        return frozenset(one.partition("=")[0].strip().lower() for one in self.values.get(key, "").split(","))


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a node has, as part of one partition. `default`: jobs that name no partition go there."""

    partition: str
    default: bool
    cpus: int
    memory_gb: float
    gpus: int

    def serves(self, partition: str | None) -> bool:
        """Whether jobs of that partition come here; None: those that name none."""
        return self.default if partition is None else self.partition == partition

    def holds(self, size: Resources) -> bool:
        """Whether it has what one node of such a job takes."""
        cpus, gpus = per_node(size)
        return self.cpus >= cpus and self.gpus >= gpus and self.memory_gb >= size.mem_gb


@dataclass(frozen=True, kw_only=True)
class Nodes(Place):
    """Nodes that are alike. `time_s` is their partition's limit; None if it has none."""

    count: int
    time_s: float | None


def per_node(size: Resources) -> tuple[int, int]:
    """The CPUs and GPUs that a job takes on each of its nodes."""
    return size.ranks_per_node * size.cpus_per_rank, size.ranks_per_node * size.gpus_per_rank


def ask() -> Site:
    """The site whose commands are on PATH."""
    return parse(commands.run(["scontrol", "show", "config"]))


def parse(text: str) -> Site:
    """`Key = value` lines."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return Site({key.strip(): value.strip() for key, _, value in pairs})


def parse_partitions(text: str) -> list[dict[str, str]]:
    """`scontrol --oneliner show partition`: every partition's words `Key=value`."""
    lines = (line.split() for line in text.splitlines() if line.startswith("PartitionName="))
    return [dict(word.split("=", 1) for word in words if "=" in word) for words in lines]


def ask_nodes() -> list[Nodes]:
    """Every kind of node of every partition."""
    return parse_nodes(commands.run(["sinfo", "--noheader", "--exact", f"--format={NODE_FIELDS}"]))


def parse_nodes(text: str) -> list[Nodes]:
    """Lines of `sinfo --exact --format=%P|%D|%c|%m|%G|%l`."""
    found = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) == 6:
            name, number, cpus, memory, gres, limit = fields
            found.append(
                Nodes(
                    partition=name.rstrip("*"),
                    default=name.endswith("*"),
                    count=count(number),
                    cpus=count(cpus),
                    memory_gb=count(memory) / 1024,
                    gpus=gpus_of(gres),
                    time_s=seconds_of(limit),
                )
            )
    return found


def gpus_of(gres: str) -> int:
    """`gpu:h100:8(S:0-1),gpu:a100:2` has ten."""
    return sum(int(count) for count in re.findall(r"(?:^|,)gpu(?::[^:,()]+)?:(\d+)", gres))


def seconds_of(limit: str) -> float | None:
    """`2-00:00:00`, `12:00:00`, `30:00` or `infinite`."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def refusal(nodes: Sequence[Nodes], size: Resources) -> str | None:
    """Why no job of this size could ever run, by what the nodes have. Whether an account may use them is not looked
    at.
    """
    there = [one for one in nodes if one.serves(size.partition)]
    if not there:
        known = ", ".join(sorted({one.partition for one in nodes}))
        name = "no default partition" if size.partition is None else f"no partition {size.partition}"
        return f"there is {name} on this cluster; it has {known}"
    cpus, gpus = per_node(size)
    for what, wanted, has in (
        ("CPUs", cpus, max(one.cpus for one in there)),
        ("GPUs", gpus, max(one.gpus for one in there)),
        ("GB of memory", size.mem_gb, max(one.memory_gb for one in there)),
    ):
        if wanted > has:
            return f"a node of this job takes {wanted:g} {what}, but the largest of {there[0].partition} has {has:g}"
    if size.nodes > (count := sum(one.count for one in there if one.holds(size))):
        return f"{size.nodes} nodes of this size, but {there[0].partition} has {count} of them"
    limit = there[0].time_s
    if limit is not None and size.time_s > limit:
        return f"time = {size.time_s:g} s, but {there[0].partition} allows {limit:g} s"
    return None


def count(text: str) -> int:
    """The number at the beginning of a field of sinfo's; 0 where there is none."""
    match = re.match(r"\d+", text)  # sinfo marks sums with a +
    return int(match[0]) if match else 0
