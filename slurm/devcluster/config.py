"""slurm.conf and its companions as text, from a site's choices. Pure: no files, clocks or processes.

Partitions:
    low    the default; its jobs are preempted by those of `high`
    high   preempts `low` and `whole`, is never preempted
    whole  like `low`, and hands out whole nodes
    cpu    for coordinators: never preempted, and on a node of its own (c1), so that it neither waits for training nor
           preempts it

CPUs and memory are on paper (config_overrides): a laptop of two cores offers four nodes of two.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from slurm.devcluster.folder import Folder

CLUSTER = "stxdev"
ACCOUNT = "stx"
PREEMPT_MODES = ("REQUEUE", "CANCEL")
SERVICE_NODE = "c1"
SERVICE_CPUS = 8
DATABASE = "slurm_acct_db"


@dataclass(frozen=True)
class Site:
    """What kind of site to be: the choices of `up`.

    `grace_s` is a preempted job's time between the signal and the KILL. `requeue_delay_s` is how long a requeued job
    waits before it may start again: Slurm takes the lifetime of a job's credential, 120 s where nobody changes it.
    """

    nodes: int = 4
    cpus: int = 2
    memory_mb: int = 6000
    preempt_mode: str = "REQUEUE"
    grace_s: int = 10
    user_signal: bool = True
    requeue_delay_s: int = 20
    max_array: int = 1001
    max_submit: int | None = None
    accounting: bool = False

    @property
    def training_nodes(self) -> list[str]:
        """n1, n2, ..."""
        return [f"n{i}" for i in range(1, self.nodes + 1)]

    @property
    def all_nodes(self) -> list[str]:
        """The training nodes and the one of the coordinators."""
        return [*self.training_nodes, SERVICE_NODE]

    @property
    def partitions(self) -> dict[str, list[str]]:
        """The nodes of each partition."""
        return {**dict.fromkeys(("low", "high", "whole"), self.training_nodes), "cpu": [SERVICE_NODE]}


@dataclass(frozen=True)
class Ports:
    """The TCP ports of this cluster: of slurmctld, of each slurmd, of slurmdbd."""

    controller: int
    nodes: Mapping[str, int]
    database: int


def slurm_conf(site: Site, folder: Folder, ports: Ports, *, user: str, first_job_id: int) -> str:
    """slurm.conf(5). Job ids begin at `first_job_id`, so that a cluster made anew does not repeat those of the last."""
    lines = [
        f"ClusterName={CLUSTER}",
        "SlurmctldHost=localhost(127.0.0.1)",
        f"SlurmctldPort={ports.controller}",
        f"SlurmUser={user}",
        f"SlurmdUser={user}",
        "AuthType=auth/munge",
        f"AuthInfo=socket={folder.munge_socket},cred_expire={site.requeue_delay_s}",
        f"StateSaveLocation={folder.state}",
        f"SlurmctldPidFile={folder.run}/slurmctld.pid",
        f"SlurmctldLogFile={folder.log('slurmctld')}",
        f"SlurmdSpoolDir={folder.spool}/%n",
        f"SlurmdPidFile={folder.run}/slurmd.%n.pid",
        f"SlurmdLogFile={folder.logs}/slurmd.%n.log",
        f"FirstJobId={first_job_id}",
        "MaxJobCount=20000",
        f"MaxArraySize={site.max_array}",
        "MinJobAge=300",
        "MailProg=/bin/true",
        *_nodes_as_we_say(site),
        *_quick(),
        *_preemption(site),
        *_accounting(site, folder, ports),
        *(_node_line(site, node, ports.nodes[node]) for node in site.all_nodes),
        *_partition_lines(site),
    ]
    return "\n".join(lines) + "\n"


def slurmdbd_conf(folder: Folder, ports: Ports, *, user: str) -> str:
    """slurmdbd.conf(5): the database is reached by its socket, under the name of the user who runs all of this."""
    lines = [
        "AuthType=auth/munge",
        f"AuthInfo=socket={folder.munge_socket}",
        "DbdHost=localhost",
        "DbdAddr=127.0.0.1",
        f"DbdPort={ports.database}",
        f"SlurmUser={user}",
        f"PidFile={folder.run}/slurmdbd.pid",
        f"LogFile={folder.log('slurmdbd')}",
        "StorageType=accounting_storage/mysql",
        "StorageHost=localhost",
        f"StorageUser={user}",
        f"StorageLoc={DATABASE}",
        "CommitDelay=1",
    ]
    return "\n".join(lines) + "\n"


def cgroup_conf(version: tuple[int, int]) -> str | None:
    """cgroup.conf(5): slurmd loads a plugin for control groups even where nothing uses them.

    Left to itself it looks at /sys/fs/cgroup, and ends when a container has none there, or a mixed one. The plugin for
    version 1 looks at nothing until it is used (seen with 22.05); newer Slurm can do without one.
    """
    if version < (22, 5):
        return None
    return "CgroupPlugin=disabled\n" if version >= (24, 5) else "CgroupPlugin=cgroup/v1\n"


def _nodes_as_we_say(site: Site) -> list[str]:
    """No cgroups, no prolog: what runs in a container and without root."""
    return [
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU",
        "SlurmdParameters=config_overrides",
        "ReturnToService=2",
    ]


def _quick() -> list[str]:
    """Intervals for people who wait: a dead node is seen in 15 s instead of 300, a free CPU is used in two."""
    return [
        "SlurmdTimeout=15",
        "KillWait=5",
        "MessageTimeout=20",
        "BatchStartTimeout=30",
        "SchedulerType=sched/backfill",
        "SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1,default_queue_depth=1000",
    ]


def _preemption(site: Site) -> list[str]:
    lines = ["PreemptType=preempt/partition_prio", f"PreemptMode={site.preempt_mode}", "JobRequeue=1"]
    if site.user_signal:
        lines.append("SlurmctldParameters=preempt_send_user_signal")
    return lines


def _accounting(site: Site, folder: Folder, ports: Ports) -> list[str]:
    if not site.accounting:
        return ["AccountingStorageType=accounting_storage/none", "JobAcctGatherType=jobacct_gather/none"]
    return [
        "AccountingStorageType=accounting_storage/slurmdbd",
        "AccountingStorageHost=localhost",
        f"AccountingStoragePort={ports.database}",
        f"AccountingStoragePass={folder.munge_socket}",
        "JobAcctGatherType=jobacct_gather/linux",
        "JobAcctGatherFrequency=task=10",
        *(["AccountingStorageEnforce=associations,limits,qos"] if site.max_submit is not None else []),
    ]


def _node_line(site: Site, node: str, port: int) -> str:
    cpus = SERVICE_CPUS if node == SERVICE_NODE else site.cpus
    return (
        f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory={site.memory_mb}"
    )


def _partition_lines(site: Site) -> list[str]:
    training = ",".join(site.training_nodes)
    preempted = f"Nodes={training} PriorityTier=1 PreemptMode={site.preempt_mode} GraceTime={site.grace_s}"
    return [
        f"PartitionName=low {preempted} Default=YES",
        f"PartitionName=whole {preempted} OverSubscribe=EXCLUSIVE",
        f"PartitionName=high Nodes={training} PriorityTier=10 PreemptMode=OFF",
        f"PartitionName=cpu Nodes={SERVICE_NODE} PriorityTier=5 PreemptMode=OFF",
    ]
