"""Drive an experiment to its end: foreground, detached and --once are this same loop.

Exit codes: 0 everything is done, 3 something failed (or is blocked or cancelled), 130 interrupted. LeaseHeld when
another coordinator drives the experiment, or took it over.
"""

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator

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
from stx.errors import LeaseHeld, StoreError
from stx.paths import Store
from stx.spec import Graph

__all__ = ["command", "drive", "prepare"]

INTERRUPTED = 130
SLICE_S = 0.1
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
    once: bool = False,
    accept_code: bool = False,
) -> int:
    """Run a prepared experiment. `stop()` is how often Ctrl-C was pressed so far: once means that all attempts save and
    leave and we wait for them; twice means that we leave at once and the jobs run on.
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
        coordinator = Coordinator(
            store, graph, cluster, launcher, lease=lease, code=code, python=python, accept_code=accept_code
        )
        with noted(coordinator), running(store):
            coordinator.open()
        with noted(coordinator), messenger(cluster.on_event, store=store, experiment=experiment) as mail:
            return rounds(
                coordinator, store=store, poll_s=cluster.poll_s, mail=mail, on_tick=on_tick, stop=stop, once=once
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
    once: bool,
) -> int:
    """Look, act, show, tell, sleep, until there is a reason to end; its exit code."""
    while True:
        presses = stop()
        if presses >= 2:
            if mail is not None:
                mail.end()
            return INTERRUPTED
        with running(store):
            if presses and not coordinator.state.stopping:
                coordinator.interrupt()
            state = coordinator.round()
        on_tick(state)
        if mail is not None:
            mail.tell(state)
        ending = end(state, once=once)
        if ending is not None:
            if state.exit_code == 0:
                with running(store):
                    coordinator.close()
            return ending
        sleep(poll_s if not state.stopping else min(poll_s, LEAVING_POLL_S), stop=stop)


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


def end(state: State, *, once: bool) -> int | None:
    """The exit code if the loop is to end after this round."""
    if state.finished:
        return state.exit_code
    if state.stopping and not any(state.held()):
        return INTERRUPTED
    return 0 if once or state.leaving else None


def sleep(seconds: float, *, stop: Callable[[], int]) -> None:
    """Sleep, but not through a Ctrl-C."""
    before, until = stop(), time.monotonic() + seconds
    while stop() == before and (left := until - time.monotonic()) > 0:
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
    somebody does: put it into the inbox then.
    """
    lease = acquire(store.experiment(graph.experiment), lease_s=cluster.lease_s, code=code.digest)
    try:
        coordinator = Coordinator(store, graph, cluster, launcher, lease=lease, code=code, python=python)
        coordinator.open()
        coordinator.order(order, name=f"direct-{secrets.token_hex(8)}")
        return coordinator.state
    finally:
        lease.release()
