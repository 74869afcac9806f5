"""The shell around the pure core: look, tell the state machine, journal, act.

One round: renew the lease, try a write, read the inbox, ask the scheduler ONCE about all live attempts, read their
directories, read heartbeats, let time pass. Events go through `step`, then into the journal, then the actions they
asked for are carried out, whose answers are events again. A command of a person's is journaled after its actions.
Nothing is kept that a coordinator after a kill -9 would not find again.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple
from pathlib import Path

from jobs import files, processes
from jobs.launcher import Launcher
from jobs.outcome import FULL
from jobs.spec import Handle, JobState, Observation
from stx.config.cluster import Cluster
from stx.coordinator import inbox, journal, limits
from stx.coordinator.attempts import Attempts, Kind, ask, load_kind
from stx.coordinator.events import (
    NOTHING,
    Action,
    Adopt,
    Cancel,
    Crashed,
    Event,
    Forgive,
    Interrupted,
    Judge,
    Observed,
    Opened,
    Ordered,
    Paused,
    Resubmit,
    Sought,
    Start,
    Stop,
    Surveyed,
    Throttled,
    Tick,
    Troubled,
    Unmark,
    Want,
)
from stx.coordinator.hearts import BEHIND_S, Hearts, Patient
from stx.coordinator.inbox import Command
from stx.coordinator.journal import Journal
from stx.coordinator.lease import Lease, Observer
from stx.coordinator.snapshot import Code
from stx.coordinator.state import State, Status
from stx.coordinator.survey import Surveyor
from stx.coordinator.throttle import Throttle
from stx.coordinator.topology import Vertex
from stx.coordinator.transitions import replay, step
from stx.errors import BackendError, StoreError, StxError
from stx.paths import Store
from stx.spec import Graph

GLANCES = 64  # stages at rest that are looked at again per round: others may publish what they miss
SHOW_AFTER_FAILURES, GIVE_UP_AFTER_FAILURES = 3, 60
CANARY_BYTES, CANARY_EVERY_S = 65536, 5.0
POLL_AT_MOST_S = 300.0  # while it does not answer
DETAIL_EVERY_S = 300.0  # a queue's expected starts change at every look: they are told now and then


class Coordinator:
    """Drives one experiment under a lease. `open` once, then `round` again and again."""

    def __init__(
        self,
        store: Store,
        graph: Graph,
        cluster: Cluster,
        launcher: Launcher,
        *,
        lease: Lease,
        code: Code,
        python: str,
        accept_code: bool = False,
        clock: Callable[[], float] = time.monotonic,
        timeline: str | None = None,
        load_kind: Callable[[str], Kind] = load_kind,
        observe: Callable[[str], Observer] | None = None,
    ) -> None:
        store = Store(store.root.absolute())
        self._experiment = store.experiment(graph.experiment)
        self._graph = graph
        self._cluster = cluster
        self._launcher = launcher
        self._lease = lease
        self._clock = clock
        self._timeline = timeline or processes.boot_id()  # which clock that is: times of another one mean nothing here
        self._attempts = Attempts(
            store=store,
            experiment=graph.experiment,
            token=lease.token,
            launcher=launcher,
            cluster=cluster,
            code=code,
            python=python,
            accept_code=accept_code,
            hold=lease.hold,
            load_kind=load_kind,
        )
        self._load_kind = load_kind
        self._observe = observe or (lambda name: Observer(store.experiment(name), clock=clock))
        self._observers: dict[str, Observer] = {}
        self._surveyor = Surveyor(
            store,
            experiment=graph.experiment,
            launcher=launcher.identity(),
            code=code.digest,
            accept_code=accept_code,
            is_abandoned=self._is_abandoned,
        )
        self._journal = Journal(self._experiment, lease.token)
        patience = {phase: limit + BEHIND_S for phase, limit in cluster.hang_after_s.model_dump().items()}
        self._hearts = Hearts(patience, poll_s=cluster.poll_s, clock=clock)
        self._failures = 0
        self._poll_due = 0.0
        self._throttle = Throttle(clock)
        self._told: dict[tuple[str, int], float] = {}
        self._canary_due = 0.0
        self._glance = 0
        self._before = journal.parts(self._experiment)
        self.state = replay(graph, journal.events(self._experiment, self._before))

    def open(self) -> None:
        """Look at every stage, and adopt what lives."""
        found = self._surveyor.everything(self.state.plan)
        for key, facts in found.items():
            self._attempts.note(self._vertex(key), facts)
        known = {vertex.key: stage.facts for vertex, stage in self.state.rows()}
        news = {key: found.get(key, NOTHING) for key, facts in known.items() if found.get(key, NOTHING) != facts}
        read = self._before[-1] if self._before else journal.NOTHING_READ
        opened = Opened(
            now=self._clock(),
            clock=self._timeline,
            token=self._lease.token,
            policy=limits.policy(self._cluster, self._graph, load_kind=self._load_kind),
            facts=news,
            before=(read.token, read.length),
        )
        self._take([opened])

    def round(self) -> State:
        """Look once at everything that may have changed, and act on it."""
        self._keep_lease()
        well = self._try_write()
        self._read_inbox()
        self._poll()
        self._survey()
        self._let_go()
        self._take(self._hearts.look(self._patients(), well=well))
        self._take([Tick(self._clock())])
        return self.state

    def interrupt(self) -> None:
        """Ask all attempts of ours to save and leave; start nothing more."""
        self._take([Interrupted(self._clock())])

    def order(self, command: Command, *, name: str) -> None:
        """Carry a person's command out. `name` makes it count once."""
        ordered = Ordered(self._clock(), name, command.verb, command.keys, command.take_over)
        after, actions = step(self.state, ordered)
        if after is self.state:
            return
        self.state = after
        # A line in the journal says that the command was carried out. Its actions leave files (marks, retries), and
        # doing them twice does no harm: so they come first, and a kill in between loses no command.
        answers = [answer for action in actions for answer in self._carry_out(action)]
        self._keep_lease()  # the letter is removed after this: it is the holder's to read
        self._write_down([ordered])
        self._take(answers)

    def crash(self, error: Exception) -> None:
        """Leave word of what ends this coordinator, where the store still takes it."""
        words = error.what if isinstance(error, StxError) else f"{type(error).__name__}: {error}"
        with contextlib.suppress(OSError):
            self._take([Crashed(self._clock(), words)])

    def close(self) -> None:
        """The experiment is done: it wants nothing any more."""
        self._keep_lease()  # whoever took over may want more
        for vertex in self.state.plan.vertices:
            self._attempts.unmark(vertex)

    def _take(self, events: Iterable[Event]) -> None:
        pending = list(events)
        while pending:
            told: list[Event] = []
            actions: list[Action] = []
            for event in pending:
                after, asked = step(self.state, event)
                if after is not self.state or asked:
                    told.append(event)
                self.state = after
                actions.extend(asked)
            self._write_down(told)
            pending = [answer for action in actions for answer in self._carry_out(action)]

    def _write_down(self, told: Sequence[Event]) -> None:
        if not self._journal.append(told) and not self.state.full:
            paused = Paused(self._clock(), f"the disk is full: {self._experiment.path}")
            self.state, _ = step(self.state, paused)
            self._journal.append([paused])

    def _carry_out(self, action: Action) -> list[Event]:
        vertex = self._vertex(action.key)
        try:
            self._lease.hold()
            return self._act(vertex, action)
        except BackendError as error:
            return [*(self._hold(error) if error.later else self._failed(error)), self._look(vertex)]
        except OSError as error:
            if error.errno not in FULL:
                raise StoreError(
                    f"cannot be written: {error.strerror}",
                    where=str(error.filename),
                    hint="jobs run on; when it can be written again, the same command goes on where it stopped",
                ) from error
            folder = Path(error.filename or self._experiment.canary).parent  # the file is a temporary one
            return [Paused(self._clock(), f"{error.strerror}: {folder}"), self._look(vertex)]

    def _act(self, vertex: Vertex, action: Action) -> list[Event]:
        attempts = self._attempts
        match action:
            case Want():
                attempts.want(vertex)
            case Unmark():
                attempts.unmark(vertex)
            case Start() | Resubmit() if self._throttle.closed:
                pass  # asked for before the scheduler refused another; settle asks again
            case Start():
                self._start(vertex, action.number)
            case Adopt():
                if not attempts.adopt(vertex, action.number):
                    return [Sought(self._clock(), vertex.key, action.number)]
            case Resubmit():
                attempts.submit(vertex, action.number)
                self._throttle.taken()
            case Judge():
                live = self.state.stage(vertex.key).facts.live
                job_id = live.job_id if live is not None and live.number == action.number else None
                attempts.judge(
                    vertex,
                    action.number,
                    job_id=job_id,
                    cause=action.cause,
                    message=action.message,
                    nodes=action.nodes,
                )
            case Forgive():
                attempts.forgive(vertex, action.number)
            case Stop() | Cancel():
                self._end(vertex, action)
        return [self._look(vertex)]

    def _start(self, vertex: Vertex, number: int) -> None:
        """Claim and submit, unless the stage turned out to be taken or done since it was last looked at."""
        self._attempts.want(vertex)
        known = self.state.stage(vertex.key).facts
        if self._surveyor.look(vertex) == known and self._attempts.claim(vertex, number):
            self._attempts.submit(vertex, number)
            self._throttle.taken()

    def _end(self, vertex: Vertex, action: Stop | Cancel) -> None:
        handle = self._attempts.handle(vertex, action.number)
        folder = self._attempts.stage(vertex).attempt(action.number).path
        if handle is not None:
            call = self._launcher.stop if isinstance(action, Stop) else self._launcher.cancel
            ask(lambda: call(handle, folder))

    def _hold(self, error: BackendError) -> list[Event]:
        """The scheduler takes nothing more now."""
        if self._throttle.closed:
            return []
        self._throttle.refused(error)
        return [Throttled(self._clock(), f"the scheduler takes no more jobs for now: {error.what}")]

    def _let_go(self) -> None:
        if self.state.throttled and self._throttle.lifted(len(self.state.live)):
            self._take([Throttled(self._clock(), "")])

    def _look(self, vertex: Vertex) -> Surveyed:
        facts = self._surveyor.look(vertex)
        self._attempts.note(vertex, facts)
        return Surveyed(self._clock(), vertex.key, facts)

    def _vertex(self, key: str) -> Vertex:
        return self.state.plan.vertices[self.state.plan.index[key]]

    def _keep_lease(self) -> None:
        try:
            self._lease.hold()
        except OSError as error:
            if error.errno not in FULL:
                raise

    def _try_write(self) -> bool:
        """The canary: submissions pause while the store cannot take what every attempt will want to write."""
        now, reason = self._clock(), ""
        if not self.state.full and now < self._canary_due:
            return True
        self._canary_due = now + CANARY_EVERY_S
        try:
            files.write(self._experiment.canary, bytes(CANARY_BYTES))
        except OSError as error:
            reason = f"the store cannot be written: {error.strerror}"
        self._take([Paused(self._clock(), reason)])
        return not reason

    def _read_inbox(self) -> None:
        for letter in inbox.letters(self._experiment):
            self.order(letter.command, name=letter.name)
            letter.path.unlink(missing_ok=True)

    def _poll(self) -> None:
        """One question about all live attempts within reach."""
        asked: dict[Handle, tuple[str, int]] = {}
        folders: dict[str, Path] = {}
        for index in sorted(self.state.live):
            vertex, live = self.state.plan.vertices[index], self.state.stages[index].facts.live
            handle = self._attempts.handle(vertex, live.number) if live and live.reachable else None
            if live is not None and handle is not None:
                asked[handle] = (vertex.key, live.number)
                folders[handle.tag] = self._attempts.stage(vertex).attempt(live.number).path
        if not asked or self._clock() < self._poll_due:
            return
        try:
            seen = ask(lambda: self._launcher.poll(tuple(asked), folders))
        except BackendError as error:
            self._take(self._failed(error))
            longer = 2 ** max(self._failures - SHOW_AFTER_FAILURES, 0)
            self._poll_due = self._clock() + min(self._cluster.poll_s * longer, POLL_AT_MOST_S)
            return
        self._failures = 0
        said: list[Event] = [Troubled(self._clock(), "")]
        for handle, observation in seen.items():
            key, number = asked[handle]
            if self._is_news(key, number, observation):
                said.append(Observed(self._clock(), key, number, *astuple(observation)))
        self._take(said)

    def _is_news(self, key: str, number: int, observation: Observation) -> bool:
        """Another state, one more time gone, or, now and then, other words for the same."""
        watch, now = self.state.stage(key).watch, self._clock()
        same = watch is not None and observation.state is watch.seen and observation.state is not JobState.ENDED
        if same and watch is not None:
            due = self._told.get((key, number), now) + DETAIL_EVERY_S
            other = (observation.detail, observation.start) != (watch.detail, watch.start)
            if not other or (watch.detail and now < due):
                self._told.setdefault((key, number), now)
                return False
        self._told[key, number] = now
        return True

    def _survey(self) -> None:
        """Live stages at every round, and by turns some that are not done: others may publish what they miss."""
        count = len(self.state.stages)
        glances = [(self._glance + offset) % count for offset in range(min(GLANCES, count))]
        self._glance = (self._glance + GLANCES) % max(count, 1)
        waiting = [index for index in glances if self.state.stages[index].status is not Status.DONE]
        for index in sorted(self.state.live | set(waiting)):
            self._take([self._look(self.state.plan.vertices[index])])

    def _patients(self) -> list[Patient]:
        found = []
        for index, stage, live in self.state.held():
            vertex = self.state.plan.vertices[index]
            folder = self._attempts.stage(vertex).attempt(live.number)
            found.append(Patient(vertex.key, live.number, folder, running=stage.seen is JobState.RUNNING))
        return found

    def _is_abandoned(self, experiment: str) -> bool:
        if experiment not in self._observers:
            self._observers[experiment] = self._observe(experiment)
        return self._observers[experiment].expired()

    def _failed(self, error: BackendError) -> Sequence[Event]:
        """One failure is the network's mood; several are shown; many in a row end the coordinator (jobs run on)."""
        self._failures += 1
        if self._failures >= GIVE_UP_AFTER_FAILURES:
            raise BackendError(
                f"{error.what} ({self._failures} times in a row)", hint="jobs run on; submit the same file again"
            )
        return [Troubled(self._clock(), error.what)] if self._failures >= SHOW_AFTER_FAILURES else []
