"""The Ray cluster that stx itself brings up for a cluster file, in one store: on this machine, or in an allocation of
Slurm's. What is up is known from the store and from squeue; nobody has to remember anything.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from jobs import files
from jobs.launchers.ray.line import Line, RayError, Where
from jobs.launchers.ray.up import folder as folders
from jobs.launchers.ray.up import here, record, there
from jobs.launchers.ray.up.folder import Asked, ClusterFolder, Over, Report, Step
from jobs.launchers.ray.up.record import Record
from jobs.launchers.ray.up.there import Allocation
from jobs.spec import Cause, JobState
from stx import named, records
from stx.config.cluster import Cluster
from stx.coordinator.attempts import ask
from stx.coordinator.prepare import writing
from stx.errors import BackendError, ConfigError
from stx.paths import Store
from stx.verbs import expected
from stx.verbs.refuse import path_with

SILENTLY = "it ended without a word: its nodes were taken away, were killed, or could not begin"
WAS_UP = frozenset({Step.UP, Step.LEAVING, Step.ENDED})
NEVER = "none was ever brought up here"
# For a supervisor on this machine to say its first word; for sinfo and sbatch to answer.
BEGIN_S = {"local": 60.0, "slurm": 240.0}
SETTLE_S = 10.0


class Standing(StrEnum):
    """How far a cluster is: WAITS for nodes, STARTS on them, is UP, LEAVES; OVER, or none was ever there (NONE)."""

    NONE = "NONE"
    WAITS = "WAITS"
    STARTS = "STARTS"
    UP = "UP"
    LEAVES = "LEAVES"
    OVER = "OVER"

    @property
    def lives(self) -> bool:
        """Whether another one would be a second."""
        return self not in (Standing.NONE, Standing.OVER)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is known of the newest cluster, and its number. `record` while it is UP; `words` say why it waits, or how it
    ended; `never_up`: it could not even begin.
    """

    standing: Standing
    words: str = ""
    folder: ClusterFolder | None = None
    asked: Asked | None = None
    record: Record | None = None
    reports: Sequence[Report] = ()
    job_id: str = ""
    never_up: bool = False
    number: int = 0


class OwnRay:
    """The cluster of one cluster file in one store."""

    def __init__(self, cluster: Cluster, store: Store) -> None:
        self._cluster, self._store = cluster, store
        self._clusters = store.ray_clusters(expected.called(cluster))

    def look(self) -> Look:
        """How it stands. BackendError where squeue does not answer."""
        number, folder = folders.newest(self._clusters)
        asked = folders.load(Asked, folder.asked)
        if asked is None:
            if number and self._is_young(folder.path):
                return Look(standing=Standing.STARTS, words="somebody asks for it now", folder=folder, number=number)
            return Look(standing=Standing.NONE, words=NEVER, number=number)
        reports, over = folder.reports(), folders.load(Over, folder.over)
        job_id, alive, waits = self._alive(folder, reports)
        found = record.read(Path(asked.record))
        if found is not None and found.keeper not in (f"slurm:{job_id}", *(one.process for one in reports[:1])):
            found = None  # of an earlier one, whose first node was killed
        words = "" if over is None else over.words
        if alive is None:
            standing, words = Standing.OVER, words or f"{SILENTLY}; what was printed is in {folder.path}"
        elif over is not None or files.read(folder.stop) is not None:
            standing = Standing.LEAVES
        elif waits:
            standing, words = Standing.WAITS, alive
        elif found is None:
            standing, words = Standing.STARTS, _progress(asked, reports)
        else:
            standing = Standing.UP
        return Look(
            standing=standing,
            words=words,
            folder=folder,
            asked=asked,
            record=found if standing is Standing.UP else None,
            reports=reports,
            job_id=job_id,
            never_up=over.cause is Cause.SETUP if over else not any(one.step in WAS_UP for one in reports),
            number=number,
        )

    def _alive(self, folder: ClusterFolder, reports: Sequence[Report]) -> tuple[str, str | None, bool]:
        """Its job, what keeps it alive (None: nothing does), and whether that still waits for nodes."""
        silent = not reports and files.read(folder.over) is None
        young = silent and self._is_young(folder.asked)
        if self._cluster.ray.where == "local":
            running = here.running(folder)
            return "", (f"{len(running)} nodes on this machine" if running or young else None), False
        known = str((records.find(folder.job) or {}).get("job_id", ""))
        for job_id, seen in ask(lambda: there.found(self._job_name(folder))).items():
            return job_id, seen.detail or f"job {job_id} was submitted", seen.state is JobState.PENDING
        return known, "it is being submitted" if young and not known else None, True

    def _is_young(self, path: Path) -> bool:
        return time.time() - path.stat().st_mtime < BEGIN_S[self._cluster.ray.where]

    def up(self, after: int, *, experiment: str = "", code: Path) -> Look:
        """Ask for the one after that number, and return at once. BackendError where Slurm does not take it, or somebody
        else asked at the same moment.
        """
        with writing(self._store.root):
            self._clusters.parent.mkdir(exist_ok=True)
            asked = self._asked(experiment=experiment)
            before = folders.load(Asked, ClusterFolder(self._clusters / f"{after:03d}").asked)
            folder = folders.claim(self._clusters, asked, number=after + 1)
            if folder is None:
                taken = BackendError("somebody else brings it up at this moment", hint="stx ray status")
                taken.later = True
                raise taken
            _write_token(Path(asked.token))
            if before is not None:
                Path(before.token).unlink(missing_ok=True)  # of one that was killed
            Path(asked.record).unlink(missing_ok=True)  # of one whose first node was killed
        if self._cluster.ray.where == "local":
            here.start(folder, environment=os.environ | {"PYTHONPATH": path_with(code)})
            return self.look()
        records.write(folder.job, {"job_id": self._submit(folder, asked, path=path_with(code))})
        return self.look()

    def _submit(self, folder: ClusterFolder, asked: Asked, *, path: str) -> str:
        """The job's id. One that was accepted, and whose answer was lost, is found by its name."""
        allocation = self._allocation(folder, path=path)
        try:
            if reason := ask(lambda: there.refusal(allocation)):
                where = f"cluster {self._cluster.name}: ray"
                raise ConfigError(f"it would never start: {reason}", where=where, hint="ask for less in `ray:`")
            submission = named.load("jobs.launchers.ray.up", "submission")  # submitit is an extra
            return ask(lambda: str(submission.submit(folder, allocation)))
        except (BackendError, ConfigError) as error:
            if accepted := self._accepted(folder):
                return accepted
            later = isinstance(error, BackendError) and error.later
            folders.publish(folder.over, Over(words=error.what, cause=None if later else Cause.SETUP))
            Path(asked.token).unlink(missing_ok=True)
            raise

    def _accepted(self, folder: ClusterFolder) -> str:
        with contextlib.suppress(BackendError):
            return next(iter(ask(lambda: there.found(self._job_name(folder)))), "")
        return ""

    def end(self, look: Look, words: str) -> None:
        """Ask it to end: jobs save first. One that still waits for nodes is cancelled."""
        assert look.folder is not None, "there is one to end"
        with writing(self._store.root):
            if look.standing is Standing.WAITS:
                folders.publish(look.folder.over, Over(words=words))
                ask(lambda: there.cancel(look.job_id))
                if look.asked is not None:
                    Path(look.asked.token).unlink(missing_ok=True)
            else:
                folders.ask_to_end(look.folder, words)

    def others(self, look: Look) -> int:
        """How many jobs wait or run on one that is UP when ours have ended, and had time to give their places back; 0
        where nobody answers.
        """
        if look.record is None:
            return 0
        where = Where(look.record.address, token=look.record.token, via=look.record.via)
        with contextlib.suppress(RayError), contextlib.closing(Line(where, about={})) as line:
            until = time.monotonic() + SETTLE_S
            while (count := len(line.ask("groups", tags=None))) and time.monotonic() < until:
                time.sleep(0.5)
            return count
        return 0

    def cancel(self, look: Look) -> None:
        """What is left of one that did not end in time."""
        assert look.folder is not None, "there is one to cancel"
        if look.job_id:
            ask(lambda: there.cancel(look.job_id))
        else:
            here.end(look.folder)

    def _job_name(self, folder: ClusterFolder) -> str:
        """Its own: found again whether or not the job's number was written down."""
        return f"stx-ray-{self._cluster.name}-{folder.path.name}@{self._store_id()}"

    def _store_id(self) -> str:
        return str((records.find(self._store.record) or {}).get("id", ""))

    def _asked(self, *, experiment: str) -> Asked:
        options = self._cluster.ray
        cpus, gpus, mem_gb = expected.share(self._cluster)
        name = f"{self._store_id()}-{self._cluster.name}-{secrets.token_hex(4)}"
        token = Path.home() / ".stx" / "ray" / name
        links = {"RAY_PROMETHEUS_HOST": options.prometheus, "RAY_GRAFANA_HOST": options.grafana}
        return Asked(
            name=self._cluster.name,
            nodes=options.nodes,
            record=str(self._store.ray(expected.called(self._cluster))),
            token=str(token),
            experiment=experiment,
            cpus=cpus,
            gpus=gpus,
            mem_gb=mem_gb,
            join_s=options.join_s,
            stop_lead_s=self._cluster.stop_lead_s,
            interface=options.interface,
            dashboard_port=options.dashboard_port,
            temp_dir=options.temp_dir,
            env={name: value for name, value in links.items() if value is not None},
        )

    def _allocation(self, folder: ClusterFolder, *, path: str) -> Allocation:
        options = self._cluster.ray
        return Allocation(
            name=self._job_name(folder),
            nodes=options.nodes,
            time_s=options.time,
            lead_s=self._cluster.stop_lead_s,
            cpus=options.cpus_per_node,
            gpus=options.gpus_per_node,
            mem_gb=options.mem_gb,
            scheduler=self._cluster.slurm.model_dump(mode="json"),
            path=path,
        )


def _write_token(path: Path) -> None:
    """A secret of its own for each cluster, which only this user reads; never in the store."""
    for folder in (path.parent.parent, path.parent):
        folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        files.write_all(descriptor, secrets.token_hex(32).encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _progress(asked: Asked, reports: Sequence[Report]) -> str:
    """How many nodes are there, and what those say that are not."""
    ready = sum(report.step is Step.UP for report in reports)
    waiting = [f"{one.name} is {one.step}" + (f": {one.words}" if one.words else "") for one in reports]
    return f"{ready} of {asked.nodes} nodes up" + (f" ({'; '.join(waiting)})" if waiting else "")
