"""The coordinator in helper jobs: one that stays until its time is over, and one that waits for its end, whatever ends
it; or a chain of passes.

Both run from the copy of the sources, and read what was accepted: the copies of the experiment file and of the cluster
file in the experiment's folder. coordinator.json there says which job it is. That only one of them drives is the
lease's doing; names of jobs only keep them from piling up.
"""

import contextlib
import functools
import os
import re
import shlex
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jobs import files
from jobs.helper import HelperJob, Helpers
from jobs.spec import JobState, Observation
from stx import records
from stx.coordinator import lease, loop
from stx.coordinator.attempts import ask
from stx.coordinator.prepare import writing
from stx.coordinator.snapshot import Code
from stx.coordinator.state import State
from stx.coordinator.status import Observer
from stx.errors import BackendError, LeaseHeld, StxError
from stx.verbs import console
from stx.verbs.driving import Departures
from stx.verbs.launching import helper_size, helpers_of
from stx.verbs.plan import Planned
from stx.verbs.refuse import path_with
from stx.verbs.wishes import Wishes

LEAD_S = 600.0
RENEW_AGAIN_S = 30.0
STARTS_WITHIN_S, LOOK_S, QUEUED_AFTER_S = 60.0, 1.0, 3.0
PATROL_S = 600.0  # of a chain: the next pass where no job's end brings one
SOONEST_S = 30.0  # no coordinator follows another faster: one that fails at once must not fill the queue


def job_name(planned: Planned, *, where: str) -> str:
    """stx-<experiment>@<store id>, and .pass behind it for the links of a chain."""
    store_id = records.read(planned.store.record)["id"]
    return f"stx-{planned.experiment.name}@{store_id}" + (".pass" if where == "chain" else "")


def request(
    wishes: Wishes, planned: Planned, *, where: str, code: Code, after: Sequence[str] = (), delay_s: float = 0.0
) -> HelperJob:
    """The helper job that is, or looks for, the coordinator. Writes the copy of the cluster file that it reads."""
    directory, cluster = planned.directory, planned.cluster
    copy = directory.cluster(cluster.name if re.fullmatch(r"\w[\w.-]*", cluster.name) else "cluster")
    with writing(planned.store.root):
        files.make_dir(copy.parent)
        files.write(copy, cluster.text.encode())
        with files.open_log(directory.log):  # Slurm appends to it; here is made sure that it is no link
            pass
    argv = [cluster.slurm.python or sys.executable, "-P", "-m", "stx.cli", "submit", str(directory.file)]
    argv += ["--copy-of", str(wishes.copy_of or wishes.file.absolute()), "--within", where]
    argv += ["--cluster", str(copy), "--store", str(planned.store.root)]
    argv += ["--accept-code"] if wishes.accept_code else []
    size = helper_size(cluster)
    return HelperJob(
        name=job_name(planned, where=where),
        argv=tuple(argv),
        cwd=directory.path,
        log=directory.log,
        mem_gb=size.mem_gb,
        time_s=size.time_s,
        env={"PYTHONPATH": path_with(code.path)},
        scheduler=size.scheduler,
        lead_s=lead_s(size.time_s) if where == "job" else 0.0,
        one_by_one=where == "job",
        after=tuple(after),
        delay_s=delay_s,
    )


def lead_s(time_s: float) -> float:
    """How long before its end a coordinator's job goes on in the next one."""
    return min(LEAD_S, time_s / 4)


def start(wishes: Wishes, planned: Planned, *, code: Code) -> int:
    """Have a job that is the coordinator; return when it holds the lease, or waits for its turn. LeaseHeld where it
    lives already.
    """
    helpers, name = helpers_of(planned.cluster), job_name(planned, where="job")
    loop.prepare(planned.store, planned.graph, planned.experiment.text)
    job = request(wishes, planned, where="job", code=code)
    if wishes.accept_code:  # one that waits was not told so
        ask(lambda: helpers.cancel_waiting(list(ask(lambda: helpers.found(name)))))
    there = _there(planned, helpers, name)
    if there is not None:
        job_id, seen = there
        console.say(f"{planned.experiment.name} has its coordinator: {seen.detail or f'job {job_id}'}; none is added")
        _suggest(wishes, planned)
        return 0
    held = lease.acquire(planned.directory, lease_s=planned.cluster.lease_s, code=code.digest)
    try:  # whoever submits at the same moment waits here, and finds ours
        job_id = next(iter(ask(lambda: helpers.found(name))), "") or ask(lambda: helpers.submit(job))
        _write_down(planned, where="job", job_id=job_id, code=code)
    finally:
        began = job.log.stat().st_size
        held.release()
    ask(lambda: helpers.cancel_waiting(list(ask(lambda: helpers.found(job_name(planned, where="chain"))))))
    return _announce(wishes, planned, helpers, job, job_id=job_id, began=began)


def _there(planned: Planned, helpers: Helpers, name: str) -> tuple[str, Observation] | None:
    """The coordinator's job that waits. One that runs takes the lease soon (LeaseHeld), or is about to end."""
    limit = time.monotonic() + STARTS_WITHIN_S
    while found := ask(lambda: helpers.found(name)):
        waiting = [(job_id, seen) for job_id, seen in found.items() if seen.state is not JobState.RUNNING]
        if len(waiting) < len(found) and lease.holder(planned.directory) is not None:
            raise LeaseHeld("its job drives it", where=str(planned.directory.path))
        if waiting:
            return waiting[0]
        if time.monotonic() > limit:
            return None
        time.sleep(LOOK_S)
    return None


def _announce(wishes: Wishes, planned: Planned, helpers: Helpers, job: HelperJob, *, job_id: str, began: int) -> int:
    """Say where it is, as soon as that is known."""
    name, start = planned.experiment.name, time.monotonic()
    while True:
        time.sleep(LOOK_S)
        holder = lease.holder(planned.directory)
        seen = ask(lambda: helpers.found(job.name)).get(job_id)
        if holder is not None:
            console.say(f"job {job_id} on {holder.host} (process {holder.pid}) drives {name}; log {job.log}")
            break
        if seen is None:
            return _ended_at_once(planned, job, job_id=job_id, began=began)
        waited = time.monotonic() - start
        if waited > (STARTS_WITHIN_S if seen.state is JobState.RUNNING else QUEUED_AFTER_S):
            console.say(f"{seen.detail}; it will drive {name}, nobody has to watch; log {job.log}")
            break
    _suggest(wishes, planned)
    return 0


def _ended_at_once(planned: Planned, job: HelperJob, *, job_id: str, began: int) -> int:
    """Its words are ours."""
    with job.log.open("rb") as stream:
        stream.seek(began)
        said = stream.read().decode(errors="replace").rstrip()
    console.say(f"job {job_id} has ended already; its words:\n{said}")
    counts = Observer(planned.store, experiment=planned.directory, graph=planned.graph).look().counts
    console.next_commands(f"stx status {planned.experiment.name}")
    return 0 if set(counts) <= {"DONE"} else 3


def _suggest(wishes: Wishes, planned: Planned) -> None:
    name = planned.experiment.name
    console.next_commands(f"stx status {name} --watch", f"stx cancel {name}", f"{wishes.again}   (attaches)")


def _write_down(planned: Planned, *, where: str, job_id: str, code: Code, follower: str = "") -> None:
    """`follower`: the job that waits for the end of this one, which is `job_id`."""
    record: dict[str, Any] = {"where": where, "job_id": job_id, "code": code.digest}
    if follower:
        record |= {"next": follower, "host": socket.gethostname(), "pid": os.getpid()}
    records.write(planned.directory.coordinator, record)


class Tenure(Departures):
    """What the coordinator in a job sees to: that another job waits for its end, and goes on whatever ends it; and that
    it leaves when its time is nearly over, when its node is taken away, or when it is told to.
    """

    def __init__(self, wishes: Wishes, planned: Planned, *, code: Code, clock: Callable[[], float] = time.monotonic):
        super().__init__()
        self._wishes, self._planned, self._code = wishes, planned, code
        self._clock = clock
        time_s = helper_size(planned.cluster).time_s
        self._due = clock() + time_s - lead_s(time_s)
        self._me = os.environ.get("SLURM_JOB_ID", "")
        self._helpers = helpers_of(planned.cluster)
        self._next, self._look_at = "", 0.0

    def handlers(self) -> dict[signal.Signals, Callable[[int, Any], None]]:
        """USR2: the end is near."""
        return super().handlers() | {signal.SIGUSR2: self._end_is_near}

    def _end_is_near(self, number: int, frame: Any) -> None:
        self._due = min(self._due, self._clock())

    def leave(self) -> bool:
        """Whether to go. Goes on here while no next job can be had."""
        if not self.hung_up and self._clock() >= self._due:
            self._next = ""  # somebody may have cancelled it
            self.hung_up = self._has_next()
            if self.hung_up:
                console.say(f"the time of job {self._me} is nearly over: job {self._next} goes on")
            else:
                self._due = self._clock() + RENEW_AGAIN_S
        return self.hung_up

    def tick(self, state: State) -> None:
        """The lease is ours: this is the job, and another one is to wait for its end."""
        if not self._next and self._clock() >= self._look_at:
            self._look_at = self._clock() + RENEW_AGAIN_S
            self._has_next()

    def close(self, *, done: bool) -> None:
        """At a regular end: no other job is to go on, unless this one only left its node."""
        if not self.hung_up:
            with contextlib.suppress(BackendError):  # it finds nothing to do
                ask(lambda: self._helpers.cancel_waiting([self._next] if self._next else []))
        if done:
            forget(self._planned)

    def _has_next(self) -> bool:
        """Whether a job waits for the end of this one; submits it if none does."""
        try:
            job = request(self._wishes, self._planned, where="job", code=self._code, delay_s=SOONEST_S)
            others = [job_id for job_id in ask(lambda: self._helpers.found(job.name)) if job_id != self._me]
            self._next = others[0] if others else ask(lambda: self._helpers.submit(job))
            _write_down(self._planned, where="job", job_id=self._me, code=self._code, follower=self._next)
        except (StxError, OSError) as error:
            console.say(f"no job yet that would go on after job {self._me}: {error}")
        return bool(self._next)


def add_links(wishes: Wishes, planned: Planned, *, code: Code, state: State) -> None:
    """After a pass: the next ones of a chain, in the place of those that still wait. None where all is at rest."""
    helpers, name = helpers_of(planned.cluster), job_name(planned, where="chain")
    old = list(ask(lambda: helpers.found(name)))
    added = []
    if not state.finished:
        for after, delay_s in next_passes(state, now=time.time()):
            link = request(wishes, planned, where="chain", code=code, after=after, delay_s=delay_s)
            added.append(ask(functools.partial(helpers.submit, link)))
    ask(lambda: helpers.cancel_waiting(old))
    if added:
        _write_down(planned, where="chain", job_id=added[0], code=code)
        console.say(f"{planned.experiment.name}: the next pass is job {' or '.join(added)}")
    else:
        forget(planned)


def add_patrol(wishes: Wishes, planned: Planned, *, code: Code) -> None:
    """Before a pass: one more, later, should this one be killed before it adds the next. A pass that may not add it is
    made all the same.
    """
    link = request(wishes, planned, where="chain", code=code, delay_s=PATROL_S)
    try:
        ask(lambda: helpers_of(planned.cluster).submit(link))
    except BackendError as error:
        console.say(f"no job yet that would go on if this pass were killed: {error}")


def next_passes(state: State, *, now: float) -> list[tuple[tuple[str, ...], float]]:
    """When to look again: after the first of these jobs has ended; so many seconds from now."""
    stages = [state.stages[index] for index in sorted(state.live)]
    lives = [stage.facts.live for stage in stages if stage.facts.live is not None]
    jobs = tuple(live.job_id for live in lives if live.reachable and live.job_id and live.job_id.isdecimal())
    dates = [state.stages[index].due for index in state.delayed]
    dates += [stage.watch.cancel_at for stage in stages if stage.watch is not None]
    delays = [max(SOONEST_S, date - now) for date in dates if date is not None]
    if len(jobs) < len(lives) or not (jobs or delays) or state.paused:
        delays.append(PATROL_S)
    return ([(jobs, 0.0)] if jobs else []) + ([((), min(delays))] if delays else [])


def forget(planned: Planned) -> None:
    """No job is to drive it any more."""
    planned.directory.coordinator.unlink(missing_ok=True)


def cron_line(wishes: Wishes, planned: Planned, *, code: Code) -> str:
    """What a person adds to a crontab or scrontab: cron knows neither the folder nor the environment of a shell."""
    where = shutil.which("squeue") if planned.cluster.launcher == "slurm" else None
    folders = dict.fromkeys([*([str(Path(where).parent)] if where else []), "/usr/local/bin", "/usr/bin", "/bin"])
    settings = {"PATH": os.pathsep.join(folders), "PYTHONPATH": path_with(code.path)}
    settings |= {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    argv = [sys.executable, "-P", "-m", "stx.cli", "submit", str(wishes.file.absolute()), "--once"]
    argv += [part for one in wishes.sets for part in ("--set", one)]
    named = wishes.cluster or os.environ.get("STX_CLUSTER") or "local"
    argv += ["--cluster", str(Path(named).absolute()) if Path(named).is_file() else named]
    argv += ["--store", str(planned.store.root)] + (["--accept-code"] if wishes.accept_code else [])
    words = shlex.join(["env", *(f"{name}={value}" for name, value in settings.items()), *argv])
    return f"*/5 * * * * {words} >> {shlex.quote(str(planned.directory.log))} 2>&1".replace("%", "\\%")
