"""Jobs of a Slurm cluster: submitit renders and submits, `jobs.exec` runs once per rank.

job id   Slurm's
poll     one squeue for all jobs of the user, whose answer `find` uses, too; sacct only for jobs that squeue has
         forgotten, and only where there is accounting
stop     scancel of a job that waits, USR2 to the tasks of one that runs; stop.json for one in between
restart  a job that the site starts again has another restart count than its started.json: it is over for us, and
         what is left of it in the queue is cancelled
"""

import functools
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from jobs import files, typed
from jobs.files import AttemptDir, Unreadable
from jobs.launchers.slurm import accounting, commands, queue, site
from jobs.launchers.slurm import nodes as slurm_nodes
from jobs.launchers.slurm.commands import SlurmError
from jobs.launchers.slurm.nodes import Node
from jobs.launchers.slurm.queue import Row
from jobs.spec import Cause, Handle, JobSpec, JobState, Observation, Resources

FRESH_S = 5.0  # squeue's answer serves everybody who asks within this time
NODES_FRESH_S = 30.0
GONE = ("invalid job id", "already completing", "already completed", "job/step already")


class SlurmLauncher:
    """jobs.launcher.Launcher on the cluster whose commands are on PATH. Its only state is squeue's last answer, and
    what was asked about ended jobs.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rows: list[Row] = []
        self._asked_at: float | None = None
        self._past = accounting.Past(clock=clock)
        self._nodes_now: list[Node] = []
        self._nodes_asked_at: float | None = None

    def identity(self) -> str:
        """The cluster by its name and its controller: several sites call theirs `cluster`."""
        return self._site.identity

    def refusal(self, resources: Resources) -> str | None:
        """Why no node of this cluster could ever take a job of this size; not known where no Slurm is."""
        return site.refusal(self._nodes, resources) if self._nodes else None

    def avoidable(self, job: JobSpec, nodes: Sequence[str]) -> tuple[str, ...]:
        """Those that leave enough others, as sinfo has them now."""
        excluded = slurm_nodes.names_of(",".join(job.scheduler.get("exclude", ())))
        return slurm_nodes.avoidable(self._known_nodes(), job, nodes, excluded=excluded)

    def render(self, job: JobSpec) -> str:
        """The batch script."""
        from jobs.launchers.slurm import request  # submitit takes its time

        return request.render(job)

    def submit(self, job: JobSpec) -> Handle:
        """Give the batch script to sbatch. The attempt's intent must be published: it is all that the job reads."""
        from jobs.launchers.slurm import request

        job.check()
        files.make_dir(job.attempt_dir)
        self._asked_at = None  # whatever comes of it, what squeue said before is out of date
        return Handle(job.tag, request.submit(job))

    def poll(self, handles: Sequence[Handle], attempt_dirs: Mapping[str, Path]) -> dict[Handle, Observation]:
        """One squeue. Of jobs that it has forgotten, accounting may know more."""
        rows = queue.by_id(self._queue(fresh_s=0.0))
        forgotten = self._past.ask([handle.job_id for handle in handles if handle.job_id not in rows])
        found = {}
        for handle in handles:
            restart = _restart(attempt_dirs[handle.tag], handle.job_id)
            row = rows.get(handle.job_id)
            seen = forgotten.get(handle.job_id) if row is None else None
            found[handle] = seen or self._blaming(queue.observe(row, restart=restart), row)
            if row is not None and found[handle].state is JobState.ENDED and row.state not in queue.ENDED:
                self._scancel(handle.job_id)
        return found

    def find(self, tag: str, attempt_dir: Path) -> Handle | None:
        """By started.json, or by the job's name: the newest one of the own user's."""
        data = files.read(AttemptDir(attempt_dir).started)
        if data is not None:
            job_id = typed.matching(str | None, typed.mapping(data)["job_id"])
            return Handle(tag, job_id) if job_id else None  # null: no job may begin it any more
        found = [row for row in self._queue(fresh_s=FRESH_S) if row.name == tag]
        return Handle(tag, max(found, key=lambda row: int(row.job_id)).job_id) if found else None

    def stop(self, handle: Handle, attempt_dir: Path) -> None:
        """One that waits is cancelled; one that runs gets USR2 in all its tasks; one about to start finds stop.json."""
        attempt = AttemptDir(attempt_dir)
        if files.read(attempt.stop) is None:
            _note(attempt, cancel=False)
        self._scancel("--state=PENDING", handle.job_id)
        self._scancel("--signal=USR2", handle.job_id)

    def cancel(self, handle: Handle, attempt_dir: Path) -> None:
        """TERM to all, KILL after KillWait: Slurm sees to it."""
        _note(AttemptDir(attempt_dir), cancel=True)
        self._scancel(handle.job_id)

    def close(self) -> None:
        """Nothing is held."""

    @functools.cached_property
    def _site(self) -> site.Site:
        return site.ask()

    @functools.cached_property
    def _nodes(self) -> Sequence[site.Nodes]:
        return site.ask_nodes() if shutil.which("sinfo") else []

    def _blaming(self, seen: Observation, row: Row | None) -> Observation:
        """With the nodes that failed, where that was the cause and can be told."""
        if row is None or seen.cause is not Cause.NODE:
            return seen
        with suppress(SlurmError):  # the cause is known, and that is what counts
            of = slurm_nodes.names_of(row.nodes)
            known = self._known_nodes() if len(of) > 1 else []
            return replace(seen, failed=slurm_nodes.failed(known, of))
        return seen

    def _known_nodes(self) -> list[Node]:
        """All nodes and their states, not older than some seconds."""
        now = self._clock()
        if self._nodes_asked_at is None or now - self._nodes_asked_at >= NODES_FRESH_S:
            self._nodes_now, self._nodes_asked_at = slurm_nodes.ask(), now
        return self._nodes_now

    def _queue(self, *, fresh_s: float) -> list[Row]:
        now = self._clock()
        if self._asked_at is None or now - self._asked_at >= fresh_s:
            self._rows = queue.parse(commands.run(queue.command(str(os.geteuid()))))
            self._asked_at = now
        return self._rows

    def _scancel(self, *arguments: str) -> None:
        """A job that is gone already is what was wanted."""
        try:
            commands.run(["scancel", *arguments])
        except SlurmError as error:
            if not any(word in str(error).lower() for word in GONE):
                raise


def _restart(attempt_dir: Path, job_id: str) -> int | None:
    """Which run of the job began the attempt, by its started.json; None if none did."""
    with suppress(Unreadable, ValueError):
        record = typed.mapping(files.read(AttemptDir(attempt_dir).started) or b"{}")
        if record.get("job_id") == job_id:
            restart: int = typed.matching(int, record.get("restart", 0))
            return restart
    return None


def _note(attempt: AttemptDir, *, cancel: bool) -> None:
    """Write stop.json; a full disk must keep nobody from stopping a job."""
    with suppress(OSError):
        files.write(attempt.stop, json.dumps({"cancel": cancel}).encode() + b"\n")
