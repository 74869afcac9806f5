"""Being the coordinator: Ctrl-C, a closed terminal, the display, one pass, and what failed at the end."""

import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jobs import files
from stx.coordinator import loop
from stx.coordinator.snapshot import Code
from stx.coordinator.state import State
from stx.coordinator.status import Line, Observer
from stx.verbs import allocations, console, live
from stx.verbs.launching import launcher_of
from stx.verbs.plan import Planned

STOPPING = "stopping: every live stage saves and yields (Ctrl-C again: leave, and let the jobs run on)"
LOG_LINES = 20
LOG_BYTES = 1 << 16


class Interrupts:
    """Counts Ctrl-C: one asks all stages to save and yield, two leave at once. A closed terminal stops nothing: the
    coordinator leaves, the jobs run on.
    """

    def __init__(self) -> None:
        self.count = 0
        self.hung_up = False

    def __call__(self) -> int:
        """How often so far."""
        return self.count

    def leave(self) -> bool:
        """Whether to leave the jobs alone and go."""
        return self.hung_up

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handlers for the length of a block."""
        handlers = self.handlers()
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)  # a helper job starts with some of them blocked
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handlers(self) -> dict[signal.Signals, Callable[[int, Any], None]]:
        """What a person at a terminal means."""
        return {signal.SIGINT: self._more, signal.SIGTERM: self._more, signal.SIGHUP: self._leave}

    def _more(self, number: int, frame: Any) -> None:
        self.count += 1

    def _leave(self, number: int, frame: Any) -> None:
        self.hung_up = True
        # Nobody reads what is printed any more, and writing to a closed terminal is an error.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(nowhere, stream)


class Departures(Interrupts):
    """Where nobody sits at a terminal, every signal means: leave, the jobs run on."""

    def handlers(self) -> dict[signal.Signals, Callable[[int, Any], None]]:
        """Also the one that a scheduler sends before it takes the node away."""
        return dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2), self._leave)

    def _leave(self, number: int, frame: Any) -> None:
        self.hung_up = True


@dataclass(frozen=True)
class Driven:
    """How it ended: `code` as of loop.drive; `left`: the coordinator was asked to leave, and jobs may run on."""

    code: int
    left: bool


def drive(
    planned: Planned,
    *,
    code: Code,
    accept_code: bool,
    interrupts: Interrupts | None = None,
    on_tick: Callable[[State], None] = lambda state: None,
) -> Driven:
    """Be the coordinator until everything rests."""
    asked = interrupts or Interrupts()
    clusters = allocations.of(planned, code=code)
    loop.prepare(planned.store, planned.graph, planned.experiment.text)
    with asked.installed(), live.shown(planned.store) as display:
        told = left = False

        def tick(state: State) -> None:
            nonlocal told, left
            left = left or state.leaving
            if asked.count and not told:
                told = True
                display.say(STOPPING)
            on_tick(state)
            if clusters is not None:
                clusters.tick(state)
            display.tick(state)

        result = _drive(planned, asked, code=code, accept_code=accept_code, on_tick=tick)
    left = left or asked.hung_up
    if left:
        console.say(f"asked to leave {planned.experiment.name}; its jobs run on")
    if clusters is not None and not left and asked.count < 2:
        clusters.close()
    return Driven(result, left)


def _drive(
    planned: Planned,
    asked: Interrupts,
    *,
    code: Code,
    accept_code: bool,
    on_tick: Callable[[State], None],
    once: bool = False,
) -> int:
    launcher = launcher_of(planned.cluster, planned.store, experiment=planned.experiment.name)
    with contextlib.closing(launcher):
        return loop.drive(
            planned.store,
            planned.graph,
            planned.cluster,
            launcher,
            code=code,
            python=sys.executable,
            on_tick=on_tick,
            stop=asked,
            leave=asked.leave,
            once=once,
            accept_code=accept_code,
        )


@dataclass(frozen=True)
class Passed:
    """What one pass did: `code` as of loop.drive, the state that it left, and the stages that it started. `rested`:
    everything was at rest before.
    """

    code: int
    state: State
    started: Sequence[str]
    rested: bool


def once(planned: Planned, *, code: Code, accept_code: bool) -> Passed:
    """Look, act, leave. LeaseHeld where somebody is at it already."""
    loop.prepare(planned.store, planned.graph, planned.experiment.text)
    before = Observer(planned.store, experiment=planned.directory, graph=planned.graph).state
    seen = [before]
    asked = Departures()
    with asked.installed():
        result = _drive(planned, asked, code=code, accept_code=accept_code, on_tick=seen.append, once=True)
    tried = {vertex.key: stage.facts.last for vertex, stage in before.rows()}
    started = [vertex.node.name for vertex, stage in seen[-1].rows() if stage.facts.last > tried[vertex.key]]
    return Passed(result, seen[-1], started, before.finished)


def say_failures(planned: Planned) -> list[Line]:
    """Every failed stage with its cause; those that failed."""
    observer = Observer(planned.store, experiment=planned.directory, graph=planned.graph)
    failed = [line for line in observer.look().lines if line.state in {"FAILED", "CANCELLED"}]
    for line in failed[:20]:
        console.say(console.styled(f"{line.state.lower()} {line.name}: {line.why}", "red", stream=sys.stderr))
    if len(failed) > 20:
        console.say(f"and {len(failed) - 20:,} more")
    return failed


def log_tail(planned: Planned, line: Line) -> str:
    """The end of what a stage's last attempt printed."""
    log = planned.store.stage(line.kind, line.key).attempt(line.attempts).log(0)
    data = (files.read(log) or b"")[-LOG_BYTES:]
    lines = deque(data.decode(errors="replace").splitlines(), maxlen=LOG_LINES)
    return "\n".join([f"{log}:", *(f"  {text}" for text in lines)])
