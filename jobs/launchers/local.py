"""Jobs on this machine: one detached supervisor each, in a session of its own, without a pipe, so that the submitter
may die.

    job id   pid:start time:boot:machine of the supervisor: everything `poll` needs, and never given twice
    live     the supervisor runs, or anything it started does: a killed supervisor's ranks are members of its session,
             whose id the kernel gives to nobody else while they live
    pending  live, but no rank has a log yet: the supervisor waits for slots
"""

import json
import os
import re
import shlex
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jobs
from jobs import files, processes, slots, supervisor, typed
from jobs.files import AttemptDir, Unreadable
from jobs.processes import Process
from jobs.spec import Handle, JobSpec, JobState, Observation, Resources

_JOB_ID = re.compile(r"([0-9]{1,9}):([0-9]{1,18}):([^:]*):([^:]*)")
KILL_AFTER_S = 2 * supervisor.END_GRACE_S
WAKE_AFTER_S = 10.0


class LocalLauncher:
    """jobs.launcher.Launcher on one machine. Its only state: the children it has to reap, and since when a supervisor
    has been seen stopped.
    """

    def __init__(self, slots_dir: Path | None = None) -> None:
        self._slots_dir = slots_dir or slots.default_dir()
        self._children: set[int] = set()
        self._stopped: dict[int, float] = {}

    def identity(self) -> str:
        """This machine, whatever the boot: after a reboot its old jobs are known to be gone."""
        return f"local:{processes.machine()}"

    def refusal(self, resources: Resources) -> str | None:
        """Why a job of this size never fits this machine."""
        if resources.nodes != 1:
            return f"nodes = {resources.nodes}: the local launcher has one node, this machine"
        ranks = resources.ranks_per_node
        for what, each, has in (
            ("cores", resources.cpus_per_rank, slots.cores()),
            ("GPUs", resources.gpus_per_rank, len(slots.gpus())),
        ):
            if ranks * each > has:
                return f"{ranks} ranks x {each} {what} = {ranks * each}, but this machine has {has} for jobs"
        if resources.mem_gb > (memory := memory_gb()):
            return f"mem_gb = {resources.mem_gb:g}, but this machine has {memory:.1f}"
        return None

    def avoidable(self, job: JobSpec, nodes: Sequence[str]) -> tuple[str, ...]:
        """There is no other node."""
        return ()

    def render(self, job: JobSpec) -> str:
        """The command line of the supervisor, and what it will start."""
        size = job.resources
        return "\n".join(
            (
                shlex.join(self._command(job)),
                f"# {size.ranks} ranks x {size.cpus_per_rank} cores, {size.gpus_per_rank} GPUs; {size.time_s:g} s",
                f"# in {job.cwd}",
                *(f"# {name}={shlex.quote(value)}" for name, value in sorted(job.env.items())),
                f"# {shlex.join(job.argv)}\n",
            )
        )

    def submit(self, job: JobSpec) -> Handle:
        """Start the supervisor. The attempt's intent must be published: it is all that the supervisor reads."""
        job.check()
        job.attempt_dir.parent.mkdir(parents=True, exist_ok=True)
        files.make_dir(job.attempt_dir)
        self._reap()
        pid = self._spawn(job)
        self._children.add(pid)
        process = processes.look(pid, zombies=True)
        assert process is not None, "a child that was not reaped has an entry in /proc"
        return Handle(job.tag, processes.unique_id(process))

    def poll(self, handles: Sequence[Handle], attempt_dirs: Mapping[str, Path]) -> dict[Handle, Observation]:
        """One look at each supervisor, and one pass over all processes if any of them is gone."""
        self._reap()
        machine = _Machine()
        self._wake(machine.supervisors(handles) | self._children)
        return {handle: machine.observe(handle, attempt_dirs[handle.tag]) for handle in handles}

    def find(self, tag: str, attempt_dir: Path) -> Handle | None:
        """By started.json, or by the command line of a supervisor that has not published it yet."""
        data = files.read(AttemptDir(attempt_dir).started)
        if data is not None:
            job_id = typed.matching(str | None, typed.mapping(data)["job_id"])
            return Handle(tag, job_id) if job_id else None  # null: no job may begin it any more
        for process in processes.every():
            if processes.owned(process.pid) and _supervises(process.pid, attempt_dir):
                return Handle(tag, processes.unique_id(process))
        return None

    def stop(self, handle: Handle, attempt_dir: Path) -> None:
        """stop.json for a supervisor about to start; USR2 for one that runs, or for the ranks of one that is gone."""
        attempt = AttemptDir(attempt_dir)
        if files.read(attempt.stop) is None:
            _note(attempt, {"cancel": False})
        live = _Machine().look(handle, attempt_dir)
        ranks = [process for process in live.others if process.pid == process.group]
        _signal_all([live.supervisor] if live.supervisor else ranks, signal.SIGUSR2)

    def cancel(self, handle: Handle, attempt_dir: Path) -> None:
        """TERM to the supervisor, which ends all it started within seconds. Call it until the job has ended.

        Ten seconds later, or where the supervisor is gone or cannot be told: KILL to everything.
        """
        attempt = AttemptDir(attempt_dir)
        live = _Machine().look(handle, attempt_dir)
        if live.supervisor and _told_to_cancel(attempt):
            _signal_all([live.supervisor], signal.SIGTERM)
        else:
            _signal_all(live.all, signal.SIGKILL)

    def close(self) -> None:
        """Nothing is held."""

    def _command(self, job: JobSpec) -> list[str]:
        # -P: a folder named `jobs` where the submitter happens to stand is not this package.
        command = [sys.executable, "-P", "-m", "jobs.exec", "--slots", str(self._slots_dir)]
        return [*command, str(job.attempt_dir)]

    def _spawn(self, job: JobSpec) -> int:
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        command = self._command(job)
        return os.posix_spawn(
            command[0],
            command,
            {"PYTHONPATH": _import_path(), **os.environ, **job.env},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(AttemptDir(job.attempt_dir).supervisor_log), append, files.MODE),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            # Blocked from its first instruction: a stop may come before Python has started.
            setsigmask=supervisor.BLOCKED_IN_RANKS,
            setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
        )

    def _wake(self, supervisors: Iterable[int]) -> None:
        """Continue those that were stopped (SIGSTOP): they alone end ranks that hang, and give cores and GPUs back.

        Ranks that were stopped with them stay so.
        """
        now = time.monotonic()
        stopped = [pid for pid in supervisors if processes.state(pid) == "T"]
        self._stopped = {pid: self._stopped.get(pid, now) for pid in stopped}
        for pid, since in self._stopped.items():
            if now - since >= WAKE_AFTER_S:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _reap(self) -> None:
        for pid in sorted(self._children):
            with suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    continue
            self._children.discard(pid)


@dataclass(frozen=True)
class _Live:
    """What runs of a job."""

    supervisor: Process | None
    others: Sequence[Process]

    @property
    def all(self) -> list[Process]:
        return [*([self.supervisor] if self.supervisor else ()), *self.others]


class _Machine:
    """One view of this machine's processes, taken when it is first needed."""

    def __init__(self) -> None:
        self._boot = processes.boot_id()
        self._name = processes.machine()

    @cached_property
    def _sessions(self) -> Mapping[int, list[Process]]:
        sessions = defaultdict(list)
        for process in processes.every():
            sessions[process.session].append(process)
        return sessions

    def supervisors(self, handles: Iterable[Handle]) -> set[int]:
        """The pids of those that run here."""
        here = [handle for handle in handles if handle.job_id.split(":")[2:] == [self._boot, self._name]]
        return {leader.pid for handle in here if (leader := self._leader(handle))}

    def observe(self, handle: Handle, attempt_dir: Path) -> Observation:
        _, _, boot, name = _parts(handle)
        if name != self._name:
            return Observation(JobState.UNKNOWN, f"a job of {name}, which cannot be seen from {self._name}")
        if boot != self._boot:
            return Observation(JobState.ENDED, "the machine was started again since")
        leader = self._leader(handle)
        if leader and not AttemptDir(attempt_dir).log(0).exists():
            return Observation(JobState.PENDING, f"pid {leader.pid} waits for cores or GPUs")
        if leader:
            return Observation(JobState.RUNNING, f"pid {leader.pid}")
        if others := self.look(handle, attempt_dir).others:
            return Observation(JobState.RUNNING, f"its supervisor is gone, {len(others)} processes are left")
        if not processes.others_are_seen() and not _owned(attempt_dir):
            return Observation(JobState.UNKNOWN, "a job of another user, whose processes cannot be seen from here")
        return Observation(JobState.ENDED)

    def look(self, handle: Handle, attempt_dir: Path) -> _Live:
        """The processes of a job; none of a job of another boot or machine."""
        pid, start_time, boot, name = _parts(handle)
        if (boot, name) != (self._boot, self._name):
            return _Live(None, ())
        leader = self._leader(handle)
        members = [process for process in self._sessions.get(pid, ()) if process.pid != pid]
        if leader is None:
            # The number of a session without members is free, and may have become another one's since.
            members = [
                process for process in members if process.start_time >= start_time and _works_in(process, attempt_dir)
            ]
        return _Live(leader, members)

    def _leader(self, handle: Handle) -> Process | None:
        pid, start_time, _, _ = _parts(handle)
        process = processes.look(pid)
        return process if process and process.start_time == start_time else None


def _parts(handle: Handle) -> tuple[int, int, str, str]:
    """Process, start time, boot and machine of a job id; of one that is none, a process of no machine."""
    match = _JOB_ID.fullmatch(handle.job_id)
    return (int(match[1]), int(match[2]), match[3], match[4]) if match else (0, 0, "", f"{handle.job_id[:80]!r}")


def _works_in(process: Process, attempt_dir: Path) -> bool:
    """Whether a process was started for an attempt. Another user's cannot be asked: then one of the attempt's owner."""
    if processes.owned(process.pid) or os.geteuid() == 0:
        return _same(processes.variable(process.pid, "STX_ATTEMPT"), attempt_dir)
    return not _owned(attempt_dir) and processes.owner(process.pid) == attempt_dir.stat().st_uid


def _owned(attempt_dir: Path) -> bool:
    """Whether an attempt is this user's."""
    return attempt_dir.stat().st_uid == os.geteuid()


def _told_to_cancel(attempt: AttemptDir) -> bool:
    """Note it in stop.json, where the supervisor looks when TERM comes. False: it had its time, or cannot be told."""
    now = time.monotonic()
    with suppress(Unreadable, ValueError):  # what cannot be read says nothing, and is written anew
        record = typed.mapping(files.read(attempt.stop) or b"{}")
        at = record.get("monotonic")
        if record.get("cancel") and record.get("boot_id") == processes.boot_id() and isinstance(at, int | float):
            return bool(now - at < KILL_AFTER_S)
    return _note(attempt, {"cancel": True, "monotonic": now, "boot_id": processes.boot_id()})


def _note(attempt: AttemptDir, record: Mapping[str, object]) -> bool:
    """Write stop.json. False on a full disk, which must keep nobody from stopping a job."""
    with suppress(OSError):
        files.write(attempt.stop, json.dumps(record).encode() + b"\n")
        return True
    return False


def _supervises(pid: int, attempt_dir: Path) -> bool:
    arguments = processes.arguments(pid)
    return b"jobs.exec" in arguments and _same(os.fsdecode(arguments[-1]), attempt_dir)


def _same(name: str | None, attempt_dir: Path) -> bool:
    """Whether a process was told of this directory, perhaps by another path to the store."""
    with suppress(OSError):
        return name is not None and attempt_dir.samefile(name)
    return False


def _signal_all(targets: Iterable[Process], number: int) -> None:
    for process in targets:
        now = processes.look(process.pid)
        if now is not None and now.start_time == process.start_time:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, number)


def _import_path() -> str:
    """Where this package lies, for a supervisor whose job does not bring its own copy."""
    return str(Path(jobs.__file__).parent.parent)


def memory_gb() -> float:
    """Memory of the machine, or of the container (cgroup v2) if that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # "max" is no number
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return total / 2**30
