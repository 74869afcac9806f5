"""What a plan refuses beyond the options: jobs that could never start here, programs that are not there.

Only what is still to be run counts: nobody needs the program of a stage that is finished.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from jobs import slots
from jobs.helper import HelperJob
from jobs.spec import Resources
from stx.config.cluster import Cluster
from stx.config.coordinator import IN_JOBS
from stx.config.load import Experiment
from stx.coordinator import layouts
from stx.coordinator.attempts import ask
from stx.errors import PlanError
from stx.plan import PlanLine
from stx.verbs.launching import helper_size, helpers_of

RUNNABLE = "give the path of a program that can be run, or the name of one that is on PATH"


def refuse_impossible(
    lines: Sequence[PlanLine],
    *,
    experiment: Experiment,
    cluster: Cluster,
    refusal: Callable[[Resources], str | None],
) -> None:
    """PlanError for the first stage that could never run, by `refusal`, or for an on_event that nobody could start."""
    missing = missing_program(cluster.on_event[0]) if cluster.on_event else ""
    if missing:
        raise PlanError(missing, where=f"cluster {cluster.name}: on_event", hint=RUNNABLE)
    todo = [line for line in lines if str(line.verb) != "cached"]
    if todo and cluster.coordinator.where in IN_JOBS:
        _refuse_home(cluster)
    _refuse_sizes(todo, cluster=cluster, refusal=refusal)
    if cluster.launcher == "local":  # the jobs see the programs that are seen from here
        _refuse_programs(todo, experiment=experiment)
        reason = slots.refusal(slots.default_dir())
        if reason:
            raise PlanError(f"cores and GPUs cannot be shared out: {reason}", where="STX_SLOTS", hint=slots.CURE)


def _refuse_home(cluster: Cluster) -> None:
    """A coordinator's job that could never run, or that would hold whole nodes for the work of a clock."""
    helpers, size = helpers_of(cluster), helper_size(cluster)
    partition = size.scheduler["partition"]
    job = HelperJob("", (), Path(), Path(), mem_gb=size.mem_gb, time_s=size.time_s, scheduler=size.scheduler)
    reason = ask(lambda: helpers.refusal(job))
    if reason:
        where = cluster.line("coordinator")
        raise PlanError(f"its job would never start: {reason}", where=where, hint="ask for less, or another partition")
    whole = "" if cluster.coordinator.allow_whole_nodes else ask(lambda: helpers.whole_nodes(partition))
    if whole:
        raise PlanError(
            f"its job of one core would get a node of its own there ({whole})",
            where=cluster.line("coordinator", *(["partition"] if cluster.coordinator.partition else [])),
            hint="name a partition that shares its nodes; or say where: detached or cron; or allow_whole_nodes: true",
        )


def _refuse_sizes(todo: Sequence[PlanLine], *, cluster: Cluster, refusal: Callable[[Resources], str | None]) -> None:
    """A job that can never fit the machine is refused here, not left in a queue for ever."""
    first = {line.node.stage: line.node for line in todo}  # all points of a sweep ask for the same
    for node in first.values():
        options = layouts.planned(node, cluster)
        reasons = [refusal(one.job.resources) for one in options]
        if all(reasons):
            every = "; ".join(dict.fromkeys(reason for reason in reasons if reason))
            where = f"cluster {cluster.name}: stages.{node.spec.kind}"
            raise PlanError(
                f"{node.name} would never start: {every}", where=where, hint="ask for less in the cluster file"
            )


def _refuse_programs(todo: Sequence[PlanLine], *, experiment: Experiment) -> None:
    for line in todo:
        if line.node.spec.kind == "command":
            what = missing_program(line.node.spec.science["argv"][0])
            if what:
                where = experiment.where(line.node.stage, "argv", values=line.node.point)
                raise PlanError(what, where=where, hint=RUNNABLE)


def missing_program(program: str) -> str:
    """Why `program` could not be started from here, or nothing."""
    if os.sep in program and not Path(program).is_absolute():
        return f"{program} is relative, and a job starts in a folder of its own"
    if shutil.which(program) is not None:
        return ""
    if os.sep not in program:
        return f"no program {program} is on PATH"
    return f"{program} {'cannot be run' if Path(program).exists() else 'does not exist'}"


def path_with(folder: Path) -> str:
    """$PYTHONPATH with a folder before all others."""
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join([str(folder), *(one for one in others if one not in ("", str(folder)))])
