"""Nodes by name: which one was to blame, and which bad ones a job can do without. Parsing is pure.

A job is never left without a choice. Of the nodes that could take it now (up, in its partition, large enough, with its
constraint) at most half are avoided, at most 16, and never so many that fewer are left than it needs. Where that cannot
be told from names (a reservation, a constraint with more than `&`) nothing is avoided.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from jobs.launchers.slurm import commands, site
from jobs.launchers.slurm.site import Place
from jobs.spec import JobSpec

FIELDS = "%N|%P|%T|%c|%m|%G|%f"
MOST = 16
# sinfo(1), NODE STATE CODES: what takes no job; a * behind it: does not respond.
AWAY = re.compile(r"down|drain|fail|maint|power|reboot|inval|unk|block|\*")
FAILED = re.compile(r"down|fail|\*")
_FEATURES = re.compile(r"[\w.:-]+(?:&[\w.:-]+)*")


@dataclass(frozen=True, kw_only=True)
class Node(Place):
    """A node by its name."""

    name: str
    state: str
    features: frozenset[str]


def ask() -> list[Node]:
    """Every node, once per partition that it is in."""
    return parse(commands.run(["sinfo", "--noheader", "--Node", f"--format={FIELDS}"]))


def parse(text: str) -> list[Node]:
    """Lines of `sinfo --Node --format=%N|%P|%T|%c|%m|%G|%f`."""
    found = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) == 7:
            name, partition, state, cpus, memory, gres, features = fields
            found.append(
                Node(
                    name=name,
                    partition=partition.rstrip("*"),
                    default=partition.endswith("*"),
                    state=state.lower(),
                    cpus=site.count(cpus),
                    memory_gb=site.count(memory) / 1024,
                    gpus=site.gpus_of(gres),
                    features=frozenset(features.split(",")),
                )
            )
    return found


def avoidable(nodes: Sequence[Node], job: JobSpec, bad: Sequence[str], *, excluded: Collection[str]) -> tuple[str, ...]:
    """Those of `bad`, the worst first, that `job` can do without. `excluded`: by its cluster file, in any case."""
    asked, size = job.scheduler, job.resources
    constraint = str(asked.get("constraint") or "")
    if asked.get("reservation") or (constraint and not _FEATURES.fullmatch(constraint)):
        return ()
    wanted = frozenset(constraint.split("&")) if constraint else frozenset()
    there = [one for one in nodes if one.serves(size.partition) and one.name not in excluded]
    fit = (one for one in there if one.holds(size) and one.features >= wanted)
    able = {one.name for one in fit if not AWAY.search(one.state)}
    room = max(0, min(len(able) // 2, len(able) - size.nodes, MOST))
    up = [name for name in bad if name in able][:room]
    away = [name for name in bad if name not in able and any(one.name == name for one in there)][:MOST]
    return tuple(name for name in bad if name in up or name in away)


def failed(nodes: Sequence[Node], of: Sequence[str]) -> tuple[str, ...]:
    """Which of a job's nodes failed: the only one, or those that are down now. Of several that are all up nobody can
    tell.
    """
    if len(of) == 1:
        return tuple(of)
    return tuple(sorted({one.name for one in nodes if one.name in of and FAILED.search(one.state)}))


def names_of(listed: str) -> list[str]:
    """The nodes in a list of Slurm's: n[1-3,7] are four."""
    if not re.search(r"[\[,]", listed):
        return [listed] if re.fullmatch(r"[\w.-]+", listed) else []
    return commands.run(["scontrol", "show", "hostnames", listed]).split()
