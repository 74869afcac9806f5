"""Drive an experiment to its end: foreground, detached, in a job and --once are this same loop.

Exit codes: 0 everything is done, or it was left as it was asked to be; 3 something failed (or is blocked or cancelled);
130 interrupted. LeaseHeld when another coordinator drives the experiment, or took it over.

--once is one pass: one round, and a few more where a job is gone (that must be seen twice). Between two passes, which
may be on two machines, delays last on the clock of all of them, the date.
"""

import contextlib
import itertools
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

from jobs.launcher import Launcher
from stx import records
from stx.config.cluster import Cluster
from stx.coordinator.driver import Coordinator
from stx.coordinator.inbox import Command
from stx.coordinator.lease import acquire
from stx.coordinator.messenger import Messenger, messenger
from stx.coordinator.prepare import prepare, writing
from stx.coordinator.snapshot import Code
from stx.coordinator.state import State
from stx.errors import ConfigError, LeaseHeld, StoreError
from stx.paths import Store
from stx.spec import Graph

__all__ = ["command", "drive", "prepare"]

INTERRUPTED = 130
SHOWN = 8  # names in a message
SLICE_S = 0.1
PASS_ROUNDS, PASS_POLL_S = 6, 2.0
LEAVING_POLL_S = 1.0


def drive(
    store: Store,
    graph: Graph,
    cluster: Cluster,
    launcher: Launcher,
    *,
    code: Code,
    python: str,
    on_tick: Callable[[State], None],
    stop: Callable[[], int],
    leave: Callable[[], bool] = lambda: False,
    once: bool = False,
    accept_code: bool = False,
) -> int:
    """Run a prepared experiment. `stop()` is how often Ctrl-C was pressed so far: once means that all attempts save and
    leave and we wait for them; twice means that we leave at once and the jobs run on, as they do when `leave()` says
    so; it is asked many times a second.
    """

    def wait(seconds: float) -> None:
        time.sleep(seconds)
        if stop():
            raise KeyboardInterrupt

    experiment = store.experiment(graph.experiment)
    with writing(experiment.path):
        lease = acquire(experiment, lease_s=cluster.lease_s, sleep=wait, code=code.digest)
    try:
        check_prepared(store, graph)
        clock: dict[str, Any] = {"clock": time.time, "timeline": "the date"} if once else {}
        coordinator = Coordinator(
            store, graph, cluster, launcher, lease=lease, code=code, python=python, accept_code=accept_code, **clock
        )
        with noted(coordinator), running(store):
            coordinator.open()
        poll_s = min(cluster.poll_s, PASS_POLL_S) if once else cluster.poll_s
        with noted(coordinator), messenger(cluster.on_event, store=store, experiment=experiment) as mail:
            return rounds(
                coordinator,
                store=store,
                poll_s=poll_s,
                mail=mail,
                on_tick=on_tick,
                stop=stop,
                leave=leave,
                most=PASS_ROUNDS if once else None,
            )
    finally:
        lease.release()


def rounds(
    coordinator: Coordinator,
    *,
    store: Store,
    poll_s: float,
    mail: Messenger | None,
    on_tick: Callable[[State], None],
    stop: Callable[[], int],
    leave: Callable[[], bool],
    most: int | None,
) -> int:
    """Look, act, show, tell, sleep, until there is a reason to end; its exit code. `most`: so many rounds at most, and
    only while one would see more.
    """
    for number in itertools.count(1):
        presses = stop()
        if presses >= 2 or leave():
            if mail is not None:
                mail.end()
            return INTERRUPTED if presses >= 2 else 0
        with running(store):
            if presses and not coordinator.state.stopping:
                coordinator.interrupt()
            state = coordinator.round()
        on_tick(state)
        if mail is not None:
            mail.tell(state)
        ending = end(state, once=most is not None and (number >= most or is_settled(state)))
        if ending is not None:
            if state.exit_code == 0:
                with running(store):
                    coordinator.close()
            return ending
        sleep(poll_s if not state.stopping else min(poll_s, LEAVING_POLL_S), stop=stop, leave=leave)
    raise AssertionError("itertools.count does not end")


@contextlib.contextmanager
def noted(coordinator: Coordinator) -> Iterator[None]:
    """An error that ends the coordinator goes into the journal: `stx status` still says it when the terminal is
    gone.
    """
    try:
        yield
    except LeaseHeld:
        raise  # the journal is another's now
    except Exception as error:
        coordinator.crash(error)
        raise


@contextlib.contextmanager
def running(store: Store) -> Iterator[None]:
    """Around a round: a store that can no longer be used ends the coordinator with a named error. A full disk does not
    come here: it pauses submissions.
    """
    try:
        with records.no_links():
            yield
    except OSError as error:
        raise StoreError(
            f"the store cannot be used any more: {error.strerror}",
            where=str(error.filename or store.root),
            hint="jobs run on; when it can be written again, submit the same file: it goes on where it stopped",
        ) from error


def check_prepared(store: Store, graph: Graph) -> None:
    """StoreError if another file was submitted under this name between `prepare` and the lease."""
    record = store.experiment(graph.experiment).graph
    if records.dumps(records.read(record, limit=records.GRAPH_BYTES)) != records.dumps(graph.dump()):
        raise StoreError(
            "another version of this experiment was submitted at the same moment",
            where=str(record),
            hint="submit the one that you mean again",
        )


def is_settled(state: State) -> bool:
    """Whether another look a moment later would decide nothing: no job is missed, none is looked for."""
    lives = [(state.stages[index].watch, state.stages[index].facts.live) for index in state.live]
    return not any((watch is not None and watch.misses) or (live is not None and live.orphan) for watch, live in lives)


def end(state: State, *, once: bool) -> int | None:
    """The exit code if the loop is to end after this round."""
    if state.finished:
        return state.exit_code
    if state.stopping and not any(state.held()):
        return INTERRUPTED
    return 0 if once or state.leaving else None


def sleep(seconds: float, *, stop: Callable[[], int], leave: Callable[[], bool]) -> None:
    """Sleep, but not through a Ctrl-C."""
    before, until = stop(), time.monotonic() + seconds
    while stop() == before and not leave() and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, SLICE_S))


def command(
    store: Store,
    graph: Graph,
    cluster: Cluster,
    launcher: Launcher,
    order: Command,
    *,
    code: Code,
    python: str,
) -> State:
    """Carry out a cancel or a retry when nobody drives the experiment: takes the lease, starts nothing. LeaseHeld when
    somebody does: put it into the inbox then. ConfigError for a cancel that would leave a job running.
    """
    lease = acquire(store.experiment(graph.experiment), lease_s=cluster.lease_s, code=code.digest)
    try:
        coordinator = Coordinator(store, graph, cluster, launcher, lease=lease, code=code, python=python)
        coordinator.open()
        if order.verb == "cancel":
            _refuse_beyond_reach(coordinator.state, order, cluster)
        coordinator.order(order, name=f"direct-{secrets.token_hex(8)}")
        return coordinator.state
    finally:
        lease.release()


def _refuse_beyond_reach(state: State, order: Command, cluster: Cluster) -> None:
    """A job of ours on another cluster than this one would run on, under a stage that is shown as CANCELLED."""
    on: dict[str, list[str]] = {}
    for vertex, stage in state.rows():
        live = stage.facts.live
        if vertex.key not in order.keys or live is None or live.user or live.shared:
            continue
        if live.experiment == state.plan.experiment and not live.reachable:
            on.setdefault(live.launcher, []).append(vertex.node.name)
    for launcher, names in on.items():
        raise ConfigError(
            f"jobs of {', '.join(names[:SHOWN])} are on {launcher}, which cluster {cluster.name} does not reach: "
            "they would run on",
            where="--cluster",
            hint="give the cluster file that the experiment was submitted with; nothing was cancelled",
        )
