"""What squeue says, and what it means for a job. Parsing is pure; tests/jobs/slurm has recorded answers.

One question for all jobs of the user, ended ones included as long as the controller remembers them (MinJobAge):

    id  state  restarts  reason  expected start  nodes  exit status  name
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jobs import outcome
from jobs.spec import Cause, JobState, Observation

SEPARATOR = "|"
FIELDS = ("JobID", "State", "RestartCnt", "Reason", "StartTime", "NodeList", "exit_code", "Name")
UNKNOWN_TIMES = frozenset({"", "N/A", "Unknown", "None"})
NO_NODES = frozenset({"", "None assigned", "(null)"})

# squeue(1), JOB STATE CODES. Of a job that is COMPLETING, processes may still run.
PENDING = frozenset({"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"})
RUNNING = frozenset(
    {"RUNNING", "CONFIGURING", "COMPLETING", "STAGE_OUT", "SIGNALING", "SUSPENDED", "STOPPED", "RESIZING"}
)
ENDED: Mapping[str, Cause | None] = {
    "COMPLETED": None,
    "FAILED": None,
    "CANCELLED": None,
    "REVOKED": None,
    "TIMEOUT": Cause.TIMEOUT,
    "DEADLINE": Cause.TIMEOUT,
    "PREEMPTED": Cause.PREEMPT,
    "NODE_FAIL": Cause.NODE,
    "BOOT_FAIL": Cause.NODE,
    "OUT_OF_MEMORY": Cause.OOM,
}

# What the node could not do of a job: its working directory or the files of its output are not there, say.
NOT_LAUNCHED = frozenset({"JobLaunchFailure", "RaisedSignal:53(Real-time_signal_19)"})

# squeue(1), JOB REASON CODES: those that people meet, in words.
REASONS = {
    "Priority": "others come first",
    "Resources": "waits for free nodes",
    "Dependency": "waits for another job",
    "BeginTime": "may not start yet: Slurm delays it",
    "JobHeldUser": "is held; to let it go: scontrol release",
    "JobHeldAdmin": "is held by an administrator",
    "launch failed requeued held": "is held: it could not be launched; see the nodes, then scontrol release",
    "ReqNodeNotAvail": "a node that it needs is not available (down, drained or reserved)",
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions": (
        "waits for nodes that are down, drained or reserved"
    ),
    "NodeDown": "a node that it needs is down",
    "Reservation": "waits for its reservation",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition is inactive",
    "PartitionTimeLimit": "asks for more time than its partition allows: it never starts",
    "PartitionNodeLimit": "asks for more nodes than its partition allows: it never starts",
    "AssocGrpCPUMinutesLimit": "the account's budget is spent",
    "QOSMaxJobsPerUserLimit": "as many of your jobs run as the QOS allows",
    "QOSMaxCpuPerUserLimit": "you use as many CPUs as the QOS allows",
    "QOSMaxGRESPerUser": "you use as many GPUs as the QOS allows",
    "QOSGrpGRES": "all of you use as many GPUs as the QOS allows",
    "MaxCpuPerAccount": "the account uses as many CPUs as it may",
    "Licenses": "waits for a license",
}


@dataclass(frozen=True)
class Row:
    """One job of squeue's. `state` is Slurm's own word; `start` its expected start, or that of a job that runs;
    `status` as wait(2) has it.
    """

    job_id: str
    state: str
    restarts: int
    reason: str
    start: str
    nodes: str
    name: str
    status: int = 0

    @property
    def words(self) -> str:
        """For people: why it waits, or where it runs. Nothing where Slurm has not looked at it yet."""
        if self.state == "PENDING":
            if self.reason in UNKNOWN_TIMES:
                return ""
            return f"job {self.job_id} {REASONS.get(self.reason, _readable(self.reason))} ({self.reason})"
        where = f" on {self.where}" if self.where else ""
        return f"job {self.job_id} is {self.state}{where}"

    @property
    def where(self) -> str:
        """Its nodes, if it has any."""
        return "" if self.nodes in NO_NODES else self.nodes

    @property
    def expected(self) -> str:
        """When one that waits may start, if Slurm has an idea."""
        return self.start if self.state == "PENDING" and self.start not in UNKNOWN_TIMES else ""


def command(user: str) -> list[str]:
    """The one question."""
    wanted = ",".join(f"{name}:{SEPARATOR}" for name in FIELDS)
    return ["squeue", "--noheader", "--states=all", f"--user={user}", f"--Format={wanted}"]


def parse(text: str) -> list[Row]:
    """squeue's answer. ValueError for a line that is none of its."""
    return [_row(line) for line in text.splitlines() if line.strip()]


def _row(line: str) -> Row:
    fields = [field.strip() for field in line.split(SEPARATOR)]
    if len(fields) < len(FIELDS) or not re.fullmatch(r"[0-9]+", fields[0]) or not (fields[2] + fields[6]).isdecimal():
        raise ValueError(f"squeue said {line[:200]!r}, which is no line of a job")
    job_id, state, restarts, reason, start, nodes, status, name = fields[: len(FIELDS)]
    return Row(job_id, state, int(restarts), reason, start, nodes, name, int(status))


def observe(row: Row | None, *, restart: int | None) -> Observation:
    """What a row means for an attempt. `restart`: the restart count that began it; None if none did.

    A job that the site started again has lost the attempt: it finds its own started.json, and leaves.
    """
    if row is None:
        return Observation(JobState.ENDED, "")
    if restart is not None and row.restarts > restart:
        return Observation(JobState.ENDED, f"job {row.job_id} was started again by the site", Cause.PREEMPT)
    if row.state in PENDING:
        return Observation(JobState.PENDING, row.words, start=row.expected)
    if row.state in RUNNING:
        return Observation(JobState.RUNNING, row.words, nodes=row.where)
    if row.state in ENDED:
        return Observation(JobState.ENDED, row.words, _cause(row))
    return Observation(JobState.UNKNOWN, row.words)


def _cause(row: Row) -> Cause | None:
    """A supervisor that could not write what kept it from beginning says it by its exit code."""
    if row.state != "FAILED":
        return ENDED[row.state]
    return Cause.NODE if row.reason in NOT_LAUNCHED else outcome.EXIT_CAUSES.get(row.status >> 8)


def by_id(rows: Iterable[Row]) -> dict[str, Row]:
    """Rows by job id."""
    return {row.job_id: row for row in rows}


def _readable(reason: str) -> str:
    """`QOSMaxWallDurationPerJobLimit` in separate words."""
    return "waits: " + re.sub(r"(?<=[a-z])(?=[A-Z])", " ", reason)
