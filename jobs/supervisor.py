"""The parent of a job's ranks, from the claim of an attempt to the last reaped process. Standard library only.

    claim     started.json by link(2): who finds another's exits 0 and touches nothing
    wait      for the machine's slots (local launcher); a stop meanwhile ends the attempt as YIELDED without a rank
    start     each rank in a process group of its own, signals still blocked: jobs.runtime unblocks them
    watch     forward USR2 and TERM; ask for a save at the time limit less stop_lead_s; end all at the time limit, and
              when one rank dies by a signal, exits with a code other than 0 and 75, or hangs (jobs/guard.py): TERM to
              everything, 5 s, KILL. Where a rank hung, all say first where they are
    conclude  say for the ranks what they cannot say any more (jobs/conclusion.py)

It never execs, so the scheduler's idea of the job and the job are one. It exits 0 when every rank exited 0 or 75; what
happened is in the outcomes.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Set
from pathlib import Path

from jobs import files, guard, hangs, memory, outcome, processes, slots, typed
from jobs.conclusion import Ending, Rank, conclude, log, publish, said, setup_failure
from jobs.environment import environment
from jobs.files import AttemptDir
from jobs.guard import Guard
from jobs.hangs import Hang
from jobs.memory import OomKiller
from jobs.outcome import EXIT_YIELDED, Outcome
from jobs.spec import Cause, JobSpec, Result

END_GRACE_S = 5.0
SLOT_POLL_S = 0.05

FORWARDED = frozenset({signal.SIGUSR2, signal.SIGTERM})
BLOCKED_IN_RANKS = FORWARDED | {signal.SIGUSR1}
_WAITED_FOR = FORWARDED | {signal.SIGCHLD}


def main(arguments: list[str]) -> int:
    """`[--slots DIR] <attempt dir>`; returns the exit code."""
    _close_inherited()
    # A blocked signal stays pending even where the default is to ignore it, so no end of a child is missed.
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR | BLOCKED_IN_RANKS | {signal.SIGALRM})
    slots_dir = Path(arguments[1]) if arguments[0] == "--slots" else None
    attempt = AttemptDir(Path(arguments[-1]))
    try:
        files.share(attempt.path)
        if not outcome.insist(lambda: _claim(attempt)):
            return 0
    except OSError as error:
        log(f"cannot begin: {error}")
        return 1
    try:
        job = _job(attempt)
    except (OSError, ValueError, KeyError, TypeError) as error:
        publish(attempt, setup_failure(0, f"{attempt.intent} cannot be used: {error!r}", error))
        return 1
    try:
        claim = _wait_for_slots(attempt, job, slots_dir)
    except (OSError, ValueError) as error:
        for rank in range(job.resources.ranks):
            publish(attempt, setup_failure(rank, f"the slots in {slots_dir} cannot be used: {error}", error))
        return 1
    if claim is None:
        return 0
    return Supervisor(attempt, job, claim.granted_gpus).run()


def _close_inherited() -> None:
    """Nobody waits for a pipe or a lock that we hold without knowing: the submitter may live in a shell pipeline."""
    for entry in list(Path("/proc/self/fd").iterdir()):
        if int(entry.name) > 2:
            with contextlib.suppress(OSError):  # the listing's own descriptor is gone by now
                os.close(int(entry.name))


def _claim(attempt: AttemptDir) -> bool:
    """Whether this process is the one that runs the attempt; says so in started.json."""
    if attempt.verdict.exists():
        log("the attempt was judged before it started; nothing to do")
        return False
    me = processes.me()
    record = {
        "job_id": processes.unique_id(me),
        "pid": me.pid,
        "start_time": me.start_time,
        "boot_id": processes.boot_id(),
        "host": processes.machine(),
    }
    data = json.dumps(record).encode() + b"\n"
    # Ours also when an earlier try made the link and failed after it.
    ours = files.publish(attempt.started, data) or files.read(attempt.started) == data
    if not ours:
        log(f"another job runs this attempt: {(files.read(attempt.started) or b'')!r}; nothing to do")
    return ours


def _job(attempt: AttemptDir) -> JobSpec:
    """What the claim says, which we run as ourselves: so it must be the same user's as started.json, which we made. In
    a store that a group shares, others may write here.
    """
    claim, ours = files.read_owned(attempt.intent), files.read_owned(attempt.started)
    if claim is None or ours is None or claim[1] != ours[1]:
        raise PermissionError("it was not written by the user whose job this is")
    return JobSpec.parse(typed.mapping(claim[0])["job"])


def _wait_for_slots(attempt: AttemptDir, job: JobSpec, folder: Path | None) -> slots.Claim | None:
    """The slots of this job (none wanted without a folder), or None when it was asked to stop before it had them."""
    ranks = job.resources.ranks if folder else 0
    claim = slots.Claim(
        folder or attempt.path,
        cores=ranks * job.resources.cpus_per_rank,
        gpus=ranks * job.resources.gpus_per_rank,
        note=job.tag,
    )
    # The file is for a stop that came before us; later ones also come as a signal.
    stopped = attempt.stop.exists()
    while not stopped:
        if not ranks or claim.advance():
            return claim
        stopped = _next_of(FORWARDED, within_s=SLOT_POLL_S) is not None
    claim.release()
    for rank in range(job.resources.ranks):
        publish(attempt, Outcome(rank, Result.YIELDED, message="stopped before it started", info={"started": False}))
    return None


class Supervisor:
    """The ranks of one attempt, from start to conclusion."""

    def __init__(self, attempt: AttemptDir, job: JobSpec, gpus: list[str]) -> None:
        self._attempt = attempt
        self._job = job
        self._gpus = gpus
        self._ranks: list[Rank] = []
        self._culprit: Rank | None = None
        self._hang: Hang | None = None
        self._start_error: Outcome | None = None
        self._told_to_end = False
        self._oom = OomKiller(memory.own_cgroup())
        self._guard = Guard(attempt, ranks=job.resources.ranks, start_limit_s=job.start_limit_s)
        start = time.monotonic()
        self._kill_at = start + job.resources.time_s
        self._stop_at = self._kill_at - job.stop_lead_s

    def run(self) -> int:
        """Start, watch, conclude; returns the exit code."""
        self._start()
        try:
            while not self._over():
                self._handle(self._next_signal())
            self._gather_stacks()
        finally:
            self._end_all()  # whatever goes wrong here leaves nobody behind
        ending = Ending(self._start_error, self._hang, self._culprit, self._told_to_end, self._oom.kills())
        conclude(self._attempt, self._ranks, of=self._job.resources.ranks, ending=ending)
        return 1 if self._start_error or self._hang or any(self._failed(rank) for rank in self._ranks) else 0

    def _over(self) -> bool:
        running = any(rank.code is None for rank in self._ranks)
        return not running or self._culprit is not None or self._told_to_end or self._start_error is not None

    def _start(self) -> None:
        try:
            os.chdir(self._job.cwd)
            for number in range(self._job.resources.ranks):
                self._ranks.append(Rank(number, self._spawn(number)))
        except OSError as error:
            message = f"{self._job.argv[0]}: cannot be started in {self._job.cwd}: {error}"
            self._start_error = setup_failure(len(self._ranks), message, error)
            log(message)
            return
        log(f"started ranks={len(self._ranks)} pids={[rank.pid for rank in self._ranks]} gpus={self._gpus}")

    def _spawn(self, number: int) -> int:
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        return os.posix_spawnp(
            self._job.argv[0],
            self._job.argv,
            environment(self._job, number, gpus=self._gpus, attempt=self._attempt, kill_at=self._kill_at)
            | {"STX_BOARD": str(self._guard.descriptor)},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self._attempt.log(number)), append, files.MODE),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setpgroup=0,
            setsigmask=BLOCKED_IN_RANKS,
            # Python ignores SIGPIPE, a shell may ignore others for us; a user's program expects the system's defaults.
            setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
        )

    def _next_signal(self) -> int | None:
        deadline = min(self._stop_at, self._kill_at, self._guard.due)
        return _next_of(_WAITED_FOR, within_s=deadline - time.monotonic())

    def _handle(self, number: int | None) -> None:
        """React to one signal, or to a deadline when there is none."""
        if number is None:
            self._deadline()
        elif number == signal.SIGCHLD:
            self._reap()
        else:
            self._forward(number)

    def _deadline(self) -> None:
        if time.monotonic() >= self._kill_at:
            log(f"time limit reached time_s={self._job.resources.time_s}")
            self._told_to_end = True
        elif time.monotonic() >= self._stop_at:
            self._stop_at = float("inf")
            self._forward(signal.SIGUSR2)
        if (hang := self._guard.look(self._running())) is not None:
            self._hung(hang)

    def _running(self) -> dict[int, int]:
        """pid by number of the ranks that run."""
        return {rank.number: rank.pid for rank in self._ranks if rank.code is None}

    def _hung(self, hang: Hang) -> None:
        """A rank that cannot end itself. One that hangs on its way out, after a good outcome, did its work."""
        log(f"hung: {hang.message}")
        rank = self._ranks[hang.rank]
        word = said(self._attempt, hang.rank)
        if word is not None and word.result is not Result.FAILED:
            os.kill(rank.pid, signal.SIGKILL)
            return
        self._hang, self._culprit = hang, rank

    def _gather_stacks(self) -> None:
        """Where one rank hung, what the others wait for tells why."""
        word = None if self._culprit is None else said(self._attempt, self._culprit.number)
        if self._hang or (word is not None and word.cause is Cause.HANG):
            guard.gather_stacks(self._attempt, self._running())
            log(f"stacks written files={[path.name for path in self._attempt.all_stacks()]}")
        if self._hang is None:
            return
        if pid := self._running().get(self._hang.rank):
            os.kill(pid, signal.SIGKILL)  # continued for its stacks, it must not go on
        hangs.publish(self._attempt, self._hang)  # after the stacks: who finds it writes its own, and ends

    def _forward(self, number: int) -> None:
        log(f"forwarding signal={signal.Signals(number).name}")
        if number == signal.SIGTERM and is_cancelled(self._attempt):
            self._told_to_end = True
            return
        for rank in self._ranks:
            if rank.code is None:
                os.kill(rank.pid, number)

    def _reap(self) -> None:
        """Collect every child that has ended: several ends may come as one signal."""
        for rank in self._ranks:
            if rank.code is not None:
                continue
            pid, status = os.waitpid(rank.pid, os.WNOHANG)
            if pid:
                rank.code = os.waitstatus_to_exitcode(status)
                log(f"ended rank={rank.number} code={rank.code}")
                if self._culprit is None and self._failed(rank):
                    self._culprit = rank

    def _failed(self, rank: Rank) -> bool:
        """Whether its end ends the others. A rank that crashed on its way out, after a good outcome, did its work."""
        if rank.code in (0, EXIT_YIELDED):
            return False
        word = said(self._attempt, rank.number)
        return word is None or word.result is Result.FAILED

    def _end_all(self) -> None:
        """End what is left of the job, also what a rank left behind: TERM, 5 s, KILL."""
        deadline = time.monotonic() + END_GRACE_S
        _signal_all(self._members(), signal.SIGTERM)
        while members := self._members():
            if time.monotonic() >= deadline:
                # Again and again: a process may fork while it is being killed.
                _signal_all(members, signal.SIGKILL)
            _next_of({signal.SIGCHLD}, within_s=0.05)
            self._reap()
        self._reap()

    def _members(self) -> list[int]:
        """Everything the ranks started that still runs: our session where we lead it, else their process groups."""
        me = processes.me()
        groups = {rank.pid for rank in self._ranks}
        leader = me.session == me.pid
        return [
            process.pid
            for process in processes.every()
            if process.pid != me.pid and (process.group in groups or (leader and process.session == me.pid))
        ]


def is_cancelled(attempt: AttemptDir) -> bool:
    """Whether stop.json says: end now, do not wait for a save. One that cannot be read does not say so."""
    try:
        return bool(typed.mapping(files.read(attempt.stop) or b"{}").get("cancel"))
    except (OSError, ValueError) as error:
        log(f"{attempt.stop} cannot be read: {error}")
        return False


def _next_of(numbers: Set[int], *, within_s: float) -> int | None:
    """The next of these signals, which are blocked; None when the time is over, and sometimes a little earlier.

    Not signal.sigtimedwait: in a process that was stopped for longer than the timeout it gives what happens to lie on
    the stack (CPython 3.11, 3.12).
    """
    signal.setitimer(signal.ITIMER_REAL, max(within_s, 0.001))
    found = signal.sigwaitinfo(numbers | {signal.SIGALRM}).si_signo
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    return None if found == signal.SIGALRM else found


def _signal_all(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
