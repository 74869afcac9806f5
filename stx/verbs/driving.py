"""Being the coordinator in the foreground: Ctrl-C, a closed terminal, the display, and what failed at the end."""

import os
import signal
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs import files
from stx.coordinator import inbox, loop
from stx.coordinator.snapshot import Code
from stx.coordinator.state import State
from stx.coordinator.status import Line, Observer
from stx.verbs import console, live
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

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handlers for the length of a block."""
        handlers = {signal.SIGINT: self._more, signal.SIGTERM: self._more, signal.SIGHUP: self._leave}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _more(self, number: int, frame: Any) -> None:
        self.count += 1

    def _leave(self, number: int, frame: Any) -> None:
        self.hung_up = True


@dataclass(frozen=True)
class Driven:
    """How it ended: `code` as of loop.drive; `left`: the coordinator was asked to leave, and jobs may run on."""

    code: int
    left: bool


def drive(planned: Planned, *, code: Code, accept_code: bool) -> Driven:
    """Be the coordinator until everything rests."""
    interrupts = Interrupts()
    loop.prepare(planned.store, planned.graph, planned.experiment.text)
    with interrupts.installed(), live.shown(planned.store) as display:
        told = left = False

        def tick(state: State) -> None:
            nonlocal told, left
            if interrupts.hung_up and not left:
                leave_silently(planned)
            left = left or interrupts.hung_up or state.leaving
            if interrupts.count and not told:
                told = True
                display.say(STOPPING)
            display.tick(state)

        result = loop.drive(
            planned.store,
            planned.graph,
            planned.cluster,
            launcher_of(planned.cluster),
            code=code,
            python=sys.executable,
            on_tick=tick,
            stop=interrupts,
            accept_code=accept_code,
        )
    if left:
        console.say(f"asked to leave {planned.experiment.name}; its jobs run on")
    return Driven(result, left)


def leave_silently(planned: Planned) -> None:
    """Nobody reads what is printed any more, and writing to a closed terminal is an error."""
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - lives as long as the process
    inbox.put(planned.directory, inbox.Command(verb="leave"))


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
