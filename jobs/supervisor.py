"""The parent of a job's ranks, or of the one that is its part (jobs/placement.py), from the claim of an attempt to the
last reaped process. Standard library only.

    leave     the Ray actor that started us, and watch from then on whether it lives (jobs/parent.py)
    see       that the attempt of this job is there at all, where a scheduler chose the node (jobs/node_check.py)
    claim     started.json by link(2): who finds another's exits 0 and touches nothing
    look      at cores, memory, GPUs and the store of such a node: what is not as it should be is its NODE outcome
    wait      for the machine's slots (local launcher); a stop meanwhile ends the attempt as YIELDED without a rank
    start     each rank in a process group of its own, signals still blocked: jobs.runtime unblocks them
    watch     forward USR2 and TERM; ask for a save at the time limit less stop_lead_s; end all at the time limit, and
              when one rank dies by a signal, exits with a code other than 0 and 75, or hangs (jobs/guard.py): TERM to
              everything, 5 s, KILL. Where a rank hung, all say first where they are
    conclude  say for the ranks what they cannot say any more (jobs/conclusion.py)

It never execs, so the scheduler's idea of the job and the job are one. It exits 0 when every rank exited 0 or 75; what
happened is in the outcomes. Where it could not even begin, its exit code says why, as a rank's does (jobs/outcome.py).
"""

import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from jobs import claims, files, guard, hangs, memory, node_check, outcome, processes, slots, typed
from jobs import parent as jobs_parent
from jobs import placement as jobs_placement
from jobs.conclusion import Ending, Rank, conclude, log, publish, said, setup_failure
from jobs.environment import environment
from jobs.files import AttemptDir
from jobs.guard import Guard
from jobs.hangs import Hang
from jobs.memory import OomKiller
from jobs.node_check import Unfit
from jobs.outcome import EXIT_YIELDED, Outcome
from jobs.parent import Parent, close_inherited
from jobs.placement import Placement
from jobs.spec import Cause, JobSpec, Result

END_GRACE_S = 5.0
END_GRACE_ELSEWHERE_S = 2.0  # the scheduler, which ends us for it, has a grace of its own
SLOT_POLL_S = 0.05

FORWARDED = frozenset({signal.SIGUSR2, signal.SIGTERM})
BLOCKED_IN_RANKS = FORWARDED | {signal.SIGUSR1}
_WAITED_FOR = FORWARDED | {signal.SIGCHLD}


def main(arguments: list[str]) -> int:
    """`[--slots DIR | --slurm | --ray --watch-fd N] <attempt dir>`; returns the exit code."""
    placement = jobs_placement.of(arguments)
    close_inherited(keep=placement.watch_fd)
    # A blocked signal stays pending even where the default is to ignore it, so no end of a child is missed.
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR | BLOCKED_IN_RANKS | {signal.SIGALRM})
    attempt = AttemptDir(Path(arguments[-1]))
    if placement.watch_fd is None:
        return _run(attempt, placement, parent=None)
    parent = Parent(placement.watch_fd)
    parent.leave()
    log(f"begun by the actor with pid={parent.pid}")
    code = _run(attempt, placement, parent=parent)
    parent.tell(f"code {code}")
    return code


def _run(attempt: AttemptDir, placement: Placement, *, parent: Parent | None) -> int:
    """Everything, from the claim to the conclusion."""
    if placement.tag and (words := node_check.missing_claim(attempt, tag=placement.tag)):
        log(f"cannot begin on {placement.node}: {words}")
        return outcome.code_of(Cause.NODE)
    try:
        files.share(attempt.path)
        if not outcome.insist(lambda: claims.claim(attempt, placement)):
            return 0
    except OSError as error:
        log(f"cannot begin: {error}")
        return outcome.exit_code(error)
    try:
        job = claims.job_of(attempt)
    except (OSError, ValueError, KeyError, TypeError) as error:
        words = f"{attempt.intent} cannot be used: {error!r}"
        publish(attempt, setup_failure(placement.only or 0, words, error, node=placement.node))
        return 1
    numbers = placement.numbers(job.resources)
    try:
        claim = _wait_for_slots(attempt, job, placement)
    except (OSError, ValueError) as error:
        for rank in numbers:
            words = f"the slots in {placement.slots} cannot be used: {error}"
            publish(attempt, setup_failure(rank, words, error, node=placement.node))
        return 1
    if claim is None:
        return 0
    gpus = _look(attempt, job, placement, granted=claim.granted_gpus)
    if isinstance(gpus, Unfit):
        where = placement.node or processes.machine()
        for rank in numbers:
            info = outcome.blamed(gpus.cause, placement.node)
            publish(attempt, Outcome(rank, Result.FAILED, gpus.cause, f"{where}: {gpus.message}", info))
        return outcome.code_of(gpus.cause)
    return Supervisor(attempt, job, gpus, placement=placement, parent=parent).run()


def _look(
    attempt: AttemptDir, job: JobSpec, placement: Placement, *, granted: Sequence[str]
) -> dict[int, list[str]] | Unfit:
    """The GPUs of each rank that starts here, or why none may start."""
    numbers = placement.numbers(job.resources)
    try:
        gpus = {number: placement.gpus_of(number, job.resources, granted=granted) for number in numbers}
    except ValueError as error:
        return Unfit(Cause.NODE, str(error))
    found = node_check.unfit(job, attempt, ranks=numbers, tell=log) if placement.node else None
    return found or gpus


def _wait_for_slots(attempt: AttemptDir, job: JobSpec, placement: Placement) -> slots.Claim | None:
    """The slots of this job (none wanted without a folder), or None when it was asked to stop before it had them."""
    ranks = job.resources.ranks if placement.slots else 0
    claim = slots.Claim(
        placement.slots or attempt.path,
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
    for rank in placement.numbers(job.resources):
        publish(attempt, Outcome(rank, Result.YIELDED, message="stopped before it started", info={"started": False}))
    return None


class Supervisor:
    """The ranks of one attempt, from start to conclusion. `gpus`: those of each rank that is started here; `parent`:
    who must not go before they end.
    """

    def __init__(
        self,
        attempt: AttemptDir,
        job: JobSpec,
        gpus: Mapping[int, list[str]],
        *,
        placement: Placement,
        parent: Parent | None = None,
    ) -> None:
        self._attempt = attempt
        self._parent = parent
        self._node = placement.node
        self._job = job
        self._gpus = gpus
        self._ranks: list[Rank] = []
        self._culprit: Rank | None = None
        self._hang: Hang | None = None
        self._start_error: Outcome | None = None
        self._told_to_end = False
        self._end_grace_s = END_GRACE_S
        self._oom = OomKiller(memory.own_cgroup())
        self._guard = Guard(attempt, ranks=job.resources.ranks, start_limit_s=job.start_limit_s)
        start = time.monotonic() - placement.elapsed_s
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
        ending = Ending(self._start_error, self._hang, self._culprit, self._told_to_end, self._oom.kills(), self._node)
        conclude(self._attempt, self._ranks, of=self._gpus.keys(), ending=ending)
        return 1 if self._start_error or self._hang or any(self._failed(rank) for rank in self._ranks) else 0

    def _over(self) -> bool:
        running = any(rank.code is None for rank in self._ranks)
        return not running or self._culprit is not None or self._told_to_end or self._start_error is not None

    def _start(self) -> None:
        try:
            os.chdir(self._job.cwd)
            for number in self._gpus:
                self._ranks.append(Rank(number, self._spawn(number)))
        except OSError as error:
            message = f"{self._job.argv[0]}: cannot be started in {self._job.cwd}: {error}"
            self._start_error = setup_failure([*self._gpus][len(self._ranks)], message, error, node=self._node)
            log(message)
            return
        log(f"started ranks={len(self._ranks)} pids={[rank.pid for rank in self._ranks]} gpus={self._gpus}")

    def _spawn(self, number: int) -> int:
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        return os.posix_spawnp(
            self._job.argv[0],
            self._job.argv,
            self._environment(number),
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

    def _environment(self, number: int) -> dict[str, str]:
        made = environment(
            self._job,
            number,
            gpus=self._gpus[number],
            attempt=self._attempt,
            kill_at=self._kill_at,
            node=self._node,
        )
        return made | {"STX_BOARD": str(self._guard.descriptor)}

    def _next_signal(self) -> int | None:
        within_s = min(self._stop_at, self._kill_at, self._guard.due) - time.monotonic()
        return _next_of(_WAITED_FOR, within_s=min(within_s, jobs_parent.LOOK_S) if self._parent else within_s)

    def _handle(self, number: int | None) -> None:
        """React to one signal, or to a deadline when there is none."""
        if self._parent is not None and self._parent.is_gone():
            self._left_alone()
        if number is None:
            self._deadline()
        elif number == signal.SIGCHLD:
            self._reap()
        else:
            self._forward(number)

    def _left_alone(self) -> None:
        """Who holds our job's place in the cluster is gone: there is the time of a stop, and no more."""
        log(f"the actor is gone: to be over within {self._job.stop_lead_s:g} s")
        self._parent = None
        self._kill_at = min(self._kill_at, time.monotonic() + self._job.stop_lead_s)
        self._forward(signal.SIGTERM)

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
        rank = next(rank for rank in self._ranks if rank.number == hang.rank)
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
        if number == signal.SIGTERM and (other := self._failed_elsewhere()) is not None:
            self._culprit, self._end_grace_s = Rank(other, pid=0), END_GRACE_ELSEWHERE_S
            return
        for rank in self._ranks:
            if rank.code is None:
                os.kill(rank.pid, number)

    def _failed_elsewhere(self) -> int | None:
        """A rank under another supervisor that failed: the scheduler ends us for it, and there is nothing to save."""
        for path in self._attempt.outcomes():
            rank = int(path.stem.removeprefix("outcome-"))
            word = None if rank in self._gpus else said(self._attempt, rank)
            if word is not None and word.result is Result.FAILED:
                return rank
        return None

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
        """End what is left of the job, also what a rank left behind: TERM, seconds, KILL."""
        deadline = time.monotonic() + self._end_grace_s
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
