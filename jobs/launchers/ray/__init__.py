"""Jobs of a Ray cluster: a detached placement group each, and in it one detached, named actor per rank, which is the
parent of that rank's supervisor. Nothing on this side imports ray: a child of ours is the driver (driver.py), and may
die with its cluster.

job id    Ray's session and the number of the placement group: no second cluster has the one, nor any job the other
pending   the group has no place yet
running   an actor lives
ended     the group is gone. Rank 0's actor removes it when the supervisors of all ranks have ended. A group without
          actors (they were killed, or their nodes are gone) is removed here, when whatever they left behind has had
          the time of a stop to save
gone      a job of an earlier session: Ray's nodes end with their head, actors with their node, and supervisors save
          when they see that; it has ended when the time for all of this is over
"""

import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jobs import files, typed
from jobs.files import AttemptDir
from jobs.launcher import Refused
from jobs.launchers.ray import nodes, request
from jobs.launchers.ray.group import Group
from jobs.launchers.ray.line import Line, RayError, Where
from jobs.launchers.ray.nodes import Node
from jobs.spec import Cause, Handle, JobSpec, JobState, Observation, Resources
from jobs.supervisor import END_GRACE_S

NODES_FRESH_S = 30.0
NOT_MADE = "none"
KILL_AFTER_S = 2 * END_GRACE_S
SLACK_S = 10.0
HEAD_LOST_S = 75.0  # Ray's nodes look for a head that is gone for 60 s


class NoCluster(Refused):
    """None of ours is up now. Jobs of earlier ones are judged all the same; new ones wait."""

    def __init__(self, words: str) -> None:
        super().__init__(words, later=True)


class RayLauncher:
    """jobs.launcher.Launcher on one cluster, or on those that follow each other at one place. Its only state: the line
    to a driver, what it said of the nodes, since when jobs are without actors, or cancelled, and which were asked
    about and are not seen to have ended: a group whose actors are gone holds its place until somebody removes it, also
    when the outcomes of its ranks were all that anybody wanted to know.
    """

    def __init__(
        self,
        name: str,
        where: Callable[[], Where],
        *,
        expected: Callable[[], Sequence[Node]] | None = None,
        about: Mapping[str, str] = MappingProxyType({}),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._where = where
        self._expected = expected
        self._about = about
        self._clock = clock
        self._line: Line | None = None
        self._at: Where | None = None
        self._nodes_now: list[Node] = []
        self._nodes_asked_at: float | None = None
        self._alone: dict[str, float] = {}
        self._cancelled: dict[str, float] = {}
        self._unended: dict[Handle, Path] = {}

    def identity(self) -> str:
        """Where clusters are found; one that follows another judges the other's jobs."""
        return f"ray:{self._name}"

    def refusal(self, resources: Resources) -> str | None:
        """Why no job of this size could ever run there, by what the cluster's nodes have, or will have: `expected`, of
        one that may not be up yet; none of them says that nobody knows.
        """
        there = self._nodes() if self._expected is None else self._expected()
        return nodes.refusal(there, resources) if there or self._expected is None else None

    def described(self) -> str:
        """What the cluster has."""
        return nodes.described(self._nodes())

    def avoidable(self, job: JobSpec, nodes: Sequence[str]) -> tuple[str, ...]:
        """Ray is not told of bad nodes."""
        return ()

    def render(self, job: JobSpec) -> str:
        """The placement group and its actors."""
        return request.render(job)

    def submit(self, job: JobSpec) -> Handle:
        """Make the group and the actors. The attempt's intent must be published: it is all that supervisors read.

        Names are Ray's to give: where the job is there already, this one never begins.
        """
        job.check()
        files.make_dir(job.attempt_dir)
        try:
            number = self._ask("submit", request=request.of(job))
        except Refused as error:
            error.cured = self._another_than(None if isinstance(error, NoCluster) else self._at)
            raise
        return Handle(job.tag, f"{self._session}:{number or NOT_MADE}")

    def poll(self, handles: Sequence[Handle], attempt_dirs: Mapping[str, Path]) -> dict[Handle, Observation]:
        """One question for all of them, and for those of earlier questions."""
        self._unended |= {handle: attempt_dirs[handle.tag] for handle in handles}
        groups = {one.number: one for one in self._groups([handle.tag for handle in self._unended])}
        seen = {handle: self._observe(handle, groups, attempt) for handle, attempt in self._unended.items()}
        self._unended = {
            handle: attempt for handle, attempt in self._unended.items() if seen[handle].state is not JobState.ENDED
        }
        return {handle: seen[handle] for handle in handles}

    def find(self, tag: str, attempt_dir: Path) -> Handle | None:
        """By started.json, or by the name of the group. One whose driver died before it made the actors is removed."""
        data = files.read(AttemptDir(attempt_dir).started)
        if data is not None:
            job_id = typed.matching(str | None, typed.mapping(data)["job_id"])
            return Handle(tag, job_id) if job_id else None  # null: no job may begin it any more
        for group in self._groups([tag]):
            if group.live:
                return Handle(tag, f"{self._session}:{group.number}")
            self._ask("remove", group=asdict(group))
        return None

    def stop(self, handle: Handle, attempt_dir: Path) -> None:
        """A group that waits is removed; supervisors get USR2; one about to start finds stop.json."""
        attempt = AttemptDir(attempt_dir)
        if files.read(attempt.stop) is None:
            _note(attempt, cancel=False)
        if (group := self._group(handle)) is not None:
            if group.waits:
                self._ask("remove", group=asdict(group))
            else:
                self._ask("call", group=asdict(group), method="signal", arguments=[int(signal.SIGUSR2)])

    def cancel(self, handle: Handle, attempt_dir: Path) -> None:
        """TERM to the supervisors, which end all they started within seconds; KILL by their actors, if they do not.
        Actors that do not answer go with the group. Call it until the job has ended.
        """
        _note(AttemptDir(attempt_dir), cancel=True)
        if (group := self._group(handle)) is None:
            return
        since = self._cancelled.setdefault(handle.job_id, self._clock())
        if group.waits or self._clock() - since > 2 * KILL_AFTER_S:
            self._ask("remove", group=asdict(group))
        else:
            self._ask("call", group=asdict(group), method="end", arguments=[KILL_AFTER_S])

    def close(self) -> None:
        """End the driver; jobs run on. What has ended without giving its place back does so now."""
        if self._line is not None and self._unended:
            with suppress(RayError):
                self.poll((), {})
        self._hang_up()

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def _observe(self, handle: Handle, groups: Mapping[str, Group], attempt_dir: Path) -> Observation:
        session, _, number = handle.job_id.rpartition(":")
        if session != self._session:
            return self._of_earlier(handle, attempt_dir)
        group = groups.get(number)
        if group is None:
            return Observation(JobState.ENDED, _printed(AttemptDir(attempt_dir)))
        if group.failed:
            return self._never_began(handle, group)
        if not group.live:
            return self._deserted(handle, group, attempt_dir)
        if group.waits:
            return Observation(JobState.PENDING, "waits for CPUs, GPUs or memory of the Ray cluster")
        return Observation(JobState.RUNNING, f"runs on {', '.join(group.nodes)}", nodes=",".join(group.nodes))

    def _never_began(self, handle: Handle, group: Group) -> Observation:
        """An actor could not even start its supervisor, or that could not begin; the others of the job are ended."""
        since = self._alone.setdefault(handle.job_id, self._clock())
        if group.live and self._clock() - since < KILL_AFTER_S:
            self._ask("call", group=asdict(group), method="end", arguments=[END_GRACE_S])
            return Observation(JobState.RUNNING, f"could not begin: {group.failed}")
        if not group.is_gone:
            self._ask("remove", group=asdict(group))
        return Observation(JobState.ENDED, f"could not begin: {group.failed}", group.cause)

    def _deserted(self, handle: Handle, group: Group, attempt_dir: Path) -> Observation:
        """No actor is left, which is not to say that no rank is."""
        if not self._is_over(handle, attempt_dir, within_s=0.0):
            return Observation(JobState.RUNNING, "its actors are gone; ranks that are left save and end")
        self._ask("remove", group=asdict(group))
        return Observation(JobState.ENDED, "its actors are gone")

    def _of_earlier(self, handle: Handle, attempt_dir: Path) -> Observation:
        """A job of a cluster that is gone, as far as can be known: its nodes may not have noticed yet. One that never
        began is nobody's loss.
        """
        if self._is_over(handle, attempt_dir, within_s=HEAD_LOST_S):
            cause = None if AttemptDir(attempt_dir).started.exists() else Cause.PREEMPT
            return Observation(JobState.ENDED, "its Ray cluster is gone", cause)
        return Observation(JobState.UNKNOWN, "its Ray cluster is gone; ranks that are left save and end")

    def _is_over(self, handle: Handle, attempt_dir: Path, *, within_s: float) -> bool:
        """Whether nothing can be left of a job that nobody holds any more: all ranks have said how they ended, or they
        had the time for it, which begins `within_s` from when this was first asked.
        """
        attempt = AttemptDir(attempt_dir)
        job = JobSpec.parse(typed.mapping(files.read(attempt.intent) or b"{}")["job"])
        if all(attempt.outcome(rank).exists() for rank in range(job.resources.ranks)):
            return True
        waited_s = self._clock() - self._alone.setdefault(handle.job_id, self._clock())
        return waited_s > within_s + job.stop_lead_s + END_GRACE_S + SLACK_S

    @property
    def _session(self) -> str:
        with suppress(NoCluster):
            return self._connected().session
        return ""

    def _group(self, handle: Handle) -> Group | None:
        """What there is of a job of this session."""
        session, _, number = handle.job_id.rpartition(":")
        groups = self._groups([handle.tag]) if session == self._session else []
        return next((one for one in groups if one.number == number and not one.is_gone), None)

    def _groups(self, tags: Sequence[str]) -> list[Group]:
        with suppress(NoCluster):
            return [typed.build(Group, record) for record in self._ask("groups", tags=list(tags))]
        return []

    def _nodes(self) -> list[Node]:
        """All nodes, not older than some seconds. Who only wants to know that keeps no driver: one whose cluster dies
        takes a core, and makes the next cluster's head take one.
        """
        now = self._clock()
        if self._nodes_asked_at is None or now - self._nodes_asked_at >= NODES_FRESH_S:
            alone = self._line is None
            self._nodes_now = [typed.build(Node, record) for record in self._ask("nodes")]
            self._nodes_asked_at = now
            if alone:
                self._hang_up()
        return self._nodes_now

    def _ask(self, question: str, **about: Any) -> Any:
        """After an error the next question is for a new driver, on the cluster that is there then."""
        try:
            return self._connected().ask(question, **about)
        except RayError:
            self._hang_up()
            raise

    def _another_than(self, refused: Where | None) -> Callable[[], bool]:
        """Whether another cluster is there by now; any, after none. Reads its record, no more."""

        def there() -> bool:
            with suppress(NoCluster):
                return self._where() != refused
            return False

        return there

    def _connected(self) -> Line:
        """To the cluster that is there now: one of ours that is about to end is not there any more."""
        try:
            where = self._where()
        except NoCluster:
            self._hang_up()
            raise
        if where != self._at:
            self._hang_up()
        if self._line is None:
            self._at = where
            self._line = Line(where, about=self._about)
        return self._line


def _note(attempt: AttemptDir, *, cancel: bool) -> None:
    """Write stop.json; a full disk must keep nobody from stopping a job."""
    with suppress(OSError):
        files.write(attempt.stop, json.dumps({"cancel": cancel}).encode() + b"\n")


def _printed(attempt: AttemptDir) -> str:
    """Where to read of a job that has ended; nothing of one that never began."""
    with suppress(OSError):
        if attempt.scheduler_logs.exists():
            return f"it has ended; what its supervisors printed is in {attempt.scheduler_logs}"
    return ""
