"""What a Slurm site will do with our jobs, in words: its configuration, read against the cluster file.

All findings but `read` are pure: they come from `scontrol show config`, `scontrol show partition` and `sinfo`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jobs.launchers.slurm import partition, site
from jobs.launchers.slurm.partition import ENDING, Partition
from jobs.launchers.slurm.site import Nodes, Site
from stx.config import schema
from stx.config.cluster import Cluster
from stx.config.coordinator import Coordinator
from stx.report.words import duration, plural
from stx.stages.base import layout_of, layouts_of, request
from stx.verbs.check import Check, fail, good, warn

LOOKS_EVERY_S = 30  # slurmctld, for jobs whose grace is over
MISSES = 2  # polls that must miss a job until it is taken for gone
ASK = "ask the site: slurm/README.md has a page for its admins"


@dataclass(frozen=True)
class Here:
    """What was read of the site."""

    site: Site
    partitions: Sequence[Partition]
    nodes: Sequence[Nodes]

    def value(self, name: str, otherwise: str = "") -> str:
        """A word of the controller's configuration; what it writes for nothing is nothing."""
        found = self.site.values.get(name, otherwise)
        return otherwise if found in ("(null)", "N/A") else found

    def seconds(self, name: str, otherwise: float = 0.0) -> float:
        """`5 sec` and `0 min`."""
        number, _, unit = self.value(name).partition(" ")
        return float(number) * (60 if unit.startswith("min") else 1) if number.isdecimal() else otherwise

    def partition(self, name: str | None) -> Partition | None:
        """By its name; None means the default one."""
        return next((one for one in self.partitions if (one.default if name is None else one.name == name)), None)


def read() -> Here:
    """Ask the controller."""
    there = site.ask()
    return Here(there, partition.ask(there), site.ask_nodes())


def findings(here: Here, cluster: Cluster) -> Iterator[Check]:
    """Everything that the configuration tells."""
    words = f"{here.value('SLURM_VERSION', 'of unknown version')} ({here.site.identity.removeprefix('slurm:')})"
    yield good("slurm", f"{words}, {plural(len(here.partitions), 'partition')}")
    yield from partitions(here, cluster)
    yield from sizes(here, cluster)
    for one in used(here, cluster):
        yield preemption(here, one, cluster)
    yield from restarts(here, cluster)
    yield time_limit(here, cluster)
    yield memory_of_jobs(here, cluster)
    yield limits(here, cluster)
    yield processes(here)


def kinds(cluster: Cluster) -> dict[str, str | None]:
    """The partition of each kind of stage that the cluster file speaks of."""
    return {kind: cluster.scheduler(kind).partition for kind in cluster.stages}


def used(here: Here, cluster: Cluster) -> list[Partition]:
    """The partitions that jobs go to, each once."""
    found = [here.partition(name) for name in kinds(cluster).values()]
    return list({one.name: one for one in found if one is not None}.values())


def partitions(here: Here, cluster: Cluster) -> Iterator[Check]:
    """They exist, they are up, and what they are like."""
    for name in dict.fromkeys(kinds(cluster).values()):
        one = here.partition(name)
        wanted = ", ".join(kind for kind, other in kinds(cluster).items() if other == name)
        if one is None:
            known = ", ".join(other.name for other in here.partitions)
            words = f"there is no {f'partition {name}' if name else 'default partition'} for stages.{wanted}"
            yield fail("partition", words, f"slurm: {{partition: one of {known}}}")
            continue
        limit = "no time limit" if one.time_s is None else f"jobs of at most {duration(one.time_s)}"
        words = f"{one.name}: {plural(one.nodes, 'node')}, {limit}" + (", whole nodes only" if one.whole else "")
        down = f"{one.name} is not up: nothing starts there"
        yield good("partition", words) if one.up else warn("partition", down, "sinfo says more; jobs wait")


def sizes(here: Here, cluster: Cluster) -> Iterator[Check]:
    """Of every kind of job one of its layouts fits its partition: nodes, cores, GPUs, memory, time."""
    refused = False
    for kind, name in kinds(cluster).items():
        resources = cluster.resources(kind)
        asked = [request(layout_of(one, resources), resources, partition=name) for one in layouts_of(resources)]
        reasons = [site.refusal(here.nodes, one) for one in asked]
        for number, reason in enumerate(reasons, start=1):
            if reason is None:
                continue
            refused = True
            place = f"cluster {cluster.name}: stages.{kind}"
            if all(reasons):
                yield fail("job sizes", f"{place}: {reason}", "ask for less, or for another partition")
            else:
                yield warn("job sizes", f"{place}: layout {number} is never used here: {reason}", "see stx plan")
    if not refused:
        yield good("job sizes", f"all jobs of cluster {cluster.name} fit their partitions")


def preemption(here: Here, one: Partition, cluster: Cluster) -> Check:
    """The signals of a job whose nodes others need, and what becomes of its work."""
    name = f"preempt {one.name}"
    if here.value("PreemptType") == "preempt/qos":
        words = "by QOS: what happens and how long the grace is stands in the QOS, which is not read here"
        return warn(
            name, words, "sacctmgr show qos format=name,preempt,preemptmode,gracetime; compare with stop_lead_s"
        )
    if not one.preempted:
        return good(name, "never: jobs keep their nodes until they end")
    if one.preempt not in ENDING:
        words = f"jobs are suspended ({one.preempt}): they stand still and keep their memory, nothing is saved"
        return warn(name, words, f"{ASK}; CANCEL or REQUEUE lets runs go on elsewhere")
    return _ended_for_others(here, one, cluster, name=name)


def _ended_for_others(here: Here, one: Partition, cluster: Cluster, *, name: str) -> Check:
    wait, lead = here.seconds("KillWait", 30.0), cluster.stop_lead_s
    saves = f"the job saves and yields, the next attempt goes on by itself (stop_lead_s = {lead:g})"
    loses = f"the next attempt goes on from the last checkpoint (checkpoint.every_s = {cluster.checkpoint.every_s:g})"
    if one.grace_s == 0:
        words = f"{one.preempt}, GraceTime 0: TERM at once, KILL {wait:g} s later (KillWait). "
        if wait >= lead:
            return good(name, f"{words}{saves}")
        return warn(name, f"{words}A save that takes longer is lost; {loses}", f"checkpoint more often; {ASK}")
    if "preempt_send_user_signal" in here.site.flags("SlurmctldParameters"):
        first = f"USR2 at once, TERM after GraceTime = {one.grace_s:g} s, KILL {wait:g} s later (KillWait)"
    else:
        first = f"TERM at once (no preempt_send_user_signal; TERM will do), KILL after GraceTime = {one.grace_s:g} s"
    words = f"{one.preempt}: {first}; slurmctld looks only every {LOOKS_EVERY_S} s whose grace is over. "
    if one.grace_s >= lead:
        return good(name, f"{words}{saves[0].upper()}{saves[1:]}")
    hint = f"stop_lead_s: {one.grace_s:g} in the cluster file, or a longer GraceTime"
    return warn(name, f"{words}A save that takes longer than the grace is lost; {loses}", hint)


def restarts(here: Here, cluster: Cluster) -> Iterator[Check]:
    """Whether the site starts jobs again by itself."""
    ours = "ours say --no-requeue: a job that ends is over, and the coordinator submits the next attempt"
    if here.value("JobRequeue", "1") == "0":
        yield good("requeue", "the site starts no job again by itself (JobRequeue=0); the coordinator submits anew")
    else:
        late = "one that is started again in spite of that finds its own started.json, leaves, and is cancelled"
        yield good("requeue", f"the site starts jobs again (JobRequeue=1); {ours}; {late}")


def time_limit(here: Here, cluster: Cluster) -> Check:
    """What a job sees at its own time limit."""
    wait, lead = here.seconds("KillWait", 30.0), cluster.stop_lead_s
    words = (
        f"{lead:g} to {lead + 60:g} s before it USR2 (stop_lead_s): the job saves and yields; KILL {wait:g} s after it"
    )
    over = here.seconds("OverTimeLimit")
    return good("time limit", words + (f"; the site lets jobs overrun by {duration(over)}" if over else ""))


def memory_of_jobs(here: Here, cluster: Cluster) -> Check:
    """How an ended job is known: squeue as long as the controller remembers it, then accounting, if there is any."""
    age, needed = here.seconds("MinJobAge", 300.0), (MISSES + 1) * cluster.poll_s
    accounting = here.value("AccountingStorageType", "accounting_storage/none") != "accounting_storage/none"
    told = f"an ended job is in squeue for {age:g} s (MinJobAge), looked at every {cluster.poll_s:g} s (poll_s)"
    if accounting:
        return good("ended jobs", f"{told}; after that sacct knows how it ended")
    if age >= needed:
        return good("ended jobs", f"{told}; no accounting, and none is needed")
    words = (
        f"{told}; no accounting: whether one without an outcome was preempted, timed out or lost its node is not seen"
    )
    hint = f"poll_s: {max(1.0, age / (MISSES + 1)):g}, or ask for MinJobAge >= {max(300.0, needed):g}"
    return warn("ended jobs", f"{words}; it counts as LOST (retries.lost = {cluster.retries.lost})", hint)


def limits(here: Here, cluster: Cluster) -> Check:
    """How many jobs the controller takes; arrays are not used."""
    most = here.value("MaxJobCount")
    words = (
        f"MaxJobCount = {most or 'unknown'} jobs of all users; this file keeps at most {cluster.limits.queued} waiting "
        f"and {cluster.limits.running} alive. Every attempt is a job of its own: MaxArraySize = "
        f"{here.value('MaxArraySize', 'unknown')} does not matter"
    )
    if most.isdecimal() and cluster.limits.running > int(most) // 2:
        return warn("limits", words, f"limits: {{running: {int(most) // 4}}} leaves room for others")
    return good("limits", f"{words}. A limit of your account is met, told and waited for")


def processes(here: Here) -> Check:
    """Whom Slurm's signals and kills reach."""
    kind = here.value("ProctrackType").removeprefix("proctrack/")
    held = "cgroup" in here.value("TaskPlugin")
    cores = "tasks are held to their cores" if held else "nothing holds a task to its cores (TaskPlugin without cgroup)"
    if kind == "cgroup":
        return good("processes", f"signals reach the tasks, kills whatever they started (cgroup); {cores}")
    if kind == "linuxproc":
        return good("processes", f"signals reach every process of a step, loaders too (linuxproc); {cores}")
    words = (
        f"ProctrackType = {kind or 'unknown'}: processes in a group of their own outlive a killed job, as ranks here do"
    )
    return warn("processes", words, f"{ASK}: proctrack/cgroup")


def homes(here: Here, *, submits: bool | None, crontab: bool) -> Iterator[tuple[dict[str, str], str]]:
    """Where the coordinator may live, the best first, and why there: what `coordinator:` of the cluster file would say.
    `submits`: whether a compute node may submit; None: not known.
    """
    quiet = [one for one in here.partitions if one.up and not one.preempted and not one.whole and one.nodes]
    quiet.sort(key=lambda one: (one.time_s is not None, -(one.time_s or 0.0), one.nodes))
    if submits and quiet:
        limit = "without a time limit" if quiet[0].time_s is None else f"for {duration(quiet[0].time_s)} at a time"
        why = f"compute nodes may submit, and {quiet[0].name} keeps a job of one core {limit}"
        yield {"where": "job", "partition": quiet[0].name}, why
    if submits:
        yield {"where": "chain"}, "compute nodes may submit: a job of one core follows each job, and looks once"
    if submits is False and crontab:
        yield {"where": "cron"}, "compute nodes may not submit, and this machine has a crontab"
    known = {True: "may submit", False: "may not submit", None: "were not asked whether they may submit"}[submits]
    yield {"where": "detached"}, f"compute nodes {known}; a process of this machine, if the site lets it live"


def proposal(here: Here, *, submits: bool | None, crontab: bool) -> tuple[dict[str, str], str]:
    """The first of them that this version of stx has."""
    found = homes(here, submits=submits, crontab=crontab)
    return next((one, why) for one, why in found if isinstance(schema.validate(Coordinator, one), Coordinator))
