"""Whose an attempt is: started.json says which run of which job runs it. Standard library only."""

import json

from jobs import files, processes, typed
from jobs.conclusion import log
from jobs.files import AttemptDir
from jobs.placement import Placement
from jobs.spec import JobSpec


def claim(attempt: AttemptDir, placement: Placement) -> bool:
    """Whether this run of this job is the one that runs the attempt; says so in started.json."""
    if attempt.verdict.exists():
        log("the attempt was judged before it started; nothing to do")
        return False
    me = processes.me()
    record = {
        "job_id": placement.job_id,
        "restart": placement.restart,
        "pid": me.pid,
        "start_time": me.start_time,
        "boot_id": processes.boot_id(),
        "host": processes.machine(),
        "nodes": placement.nodes,
    }
    data = json.dumps(record).encode() + b"\n"
    if files.publish(attempt.started, data):
        return True
    # Ours also when a rank of the same run came first, or an earlier try made the link and failed after it.
    there = files.read(attempt.started) or b"{}"
    found = typed.mapping(there)
    ours = (found.get("job_id"), found.get("restart", 0)) == (placement.job_id, placement.restart)
    if not ours:
        log(f"another job runs this attempt: {there!r}; nothing to do")
    return ours


def job_of(attempt: AttemptDir) -> JobSpec:
    """What the claim says, which we run as ourselves: so it must be the same user's as started.json, which we made. In
    a store that a group shares, others may write here.
    """
    claim, ours = files.read_owned(attempt.intent), files.read_owned(attempt.started)
    if claim is None or ours is None or claim[1] != ours[1]:
        raise PermissionError("it was not written by the user whose job this is")
    return JobSpec.parse(typed.mapping(claim[0])["job"])
