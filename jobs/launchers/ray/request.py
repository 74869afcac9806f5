"""What a job asks of Ray: one placement group, one bundle per node, and in each as many actors as it has ranks there.
Pure: this is what the driver gets, and what `stx plan --requests` shows.

A bundle lies on one node, so the ranks of a node are together whatever the strategy; STRICT_SPREAD keeps two bundles
off one node.
"""

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jobs
from jobs import files, typed
from jobs.files import AttemptDir
from jobs.launchers.ray import names
from jobs.spec import JobSpec


def of(job: JobSpec) -> dict[str, Any]:
    """What the driver gets. ValueError for a claim that cannot be read."""
    size = job.resources
    memory = int(size.mem_gb * 2**30) // size.ranks_per_node
    rank = {"CPU": size.cpus_per_rank, "GPU": size.gpus_per_rank, "memory": memory}
    rank = {name: amount for name, amount in rank.items() if amount}  # Ray takes no zeros
    return {
        "name": job.tag,
        "label": label_of(job),
        "strategy": "STRICT_SPREAD" if size.nodes > 1 else "PACK",
        "bundles": [{name: amount * size.ranks_per_node for name, amount in rank.items()}] * size.nodes,
        "rank": rank,
        "ranks_per_node": size.ranks_per_node,
        "attempt_dir": str(job.attempt_dir),
        "command": [sys.executable, "-P", "-m", "jobs.exec", "--ray"],
        "path": import_path(job.env),
        "stop_lead_s": job.stop_lead_s,
    }


def render(job: JobSpec) -> str:
    """For people: the request, and what each rank will run."""
    size = job.resources
    return "\n".join(
        (
            json.dumps(of(job), indent=2),
            f"# detached actors {names.actor(job.tag, 0)} and so on: {size.ranks}, for {size.time_s:g} s at most",
            f"# in {job.cwd}",
            *(f"# {name}={shlex.quote(value)}" for name, value in sorted(job.env.items())),
            f"# {shlex.join(job.argv)}\n",
        )
    )


def label_of(job: JobSpec) -> str:
    """Experiment, stage and point of its sweep, by the claim, for those who look at Ray's dashboard."""
    record = typed.mapping(files.read(AttemptDir(job.attempt_dir).intent) or b"{}")
    found = (record.get("experiment"), record.get("name"))
    return "/".join(part for part in found if isinstance(part, str)) or job.tag


def import_path(env: Mapping[str, str]) -> str:
    """Where the nodes find this package: the job's own copy, or where it lies here."""
    return env.get("PYTHONPATH") or str(Path(jobs.__file__).parent.parent)
