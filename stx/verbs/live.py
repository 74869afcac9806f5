"""What `submit` shows while it drives: a live table on a terminal, one line per change of state elsewhere.

The table has one row per live stage and counts for the rest, so it stays calm with a thousand stages. It is drawn
from the coordinator's own state after a poll, at most twice a second, without a thread of its own.
"""

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Literal, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stx.coordinator.state import State, Status
from stx.coordinator.status import LIVE, QUEUED, Line, counts, is_queued, overview
from stx.paths import Store
from stx.report.words import duration, one_line
from stx.verbs import console
from stx.verbs.screen import movable

REDRAW_S = 0.5
NOTE_S = 30.0
SHOWN_FAILURES = 5
# The columns for terminals of at least so many columns of their own.
COLUMNS = (
    (75, ("stage", "progress", "%", "images/s", "ETA", "loss", "try", "")),
    (55, ("stage", "%", "images/s", "ETA", "loss", "")),
    (0, ("stage", "%", "ETA")),
)
COUNT_STYLES: dict[str, str] = {
    Status.DONE: "green",
    Status.RUNNING: "bold green",
    QUEUED: "cyan",
    Status.ELSEWHERE: "cyan",
    Status.FAILED: "bold red",
    Status.BLOCKED: "red",
    Status.CANCELLED: "yellow",
    Status.DELAYED: "yellow",
}


class LiveDisplay:
    """The table on a terminal."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._drawn = 0.0
        self._note = ""

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """A note under the table, until the next one."""
        self._note = text

    def tick(self, state: State) -> None:
        """Redraw, if it is time."""
        now = time.monotonic()
        if now - self._drawn < REDRAW_S:
            return
        self._drawn = now
        self._live.update(self._render(state), refresh=True)

    def _render(self, state: State) -> Group:
        lines = _live_lines(state, store=self._store)
        room = max(3, shutil.get_terminal_size().lines - SHOWN_FAILURES - 5)
        parts: list[Table | Text] = [_table(lines[:room], width=self._console.width)] if lines else []
        if len(lines) > room:
            parts.append(Text(f"and {len(lines) - room:,} more live stages", style="dim"))
        parts += [
            Text(f"failed {name}: {one_line(why)}", style="red", overflow="ellipsis", no_wrap=True)
            for name, why in _failures(state)
        ]
        parts.append(_counts(state))
        if self._note:
            parts.append(Text(self._note, style="yellow"))
        return Group(*parts)


class PlainDisplay:
    """Lines for a log file or a pipe: changes of state, pauses, and how far live stages are every half minute."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last: dict[str, Status] = {}
        self._told: dict[str, Line] = {}
        self._began = False
        self._paused = ""
        self._state: State | None = None
        self._noted = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def say(self, text: str) -> None:
        """A line."""
        console.say(f"{time.strftime('%H:%M:%S')} {text}")

    def tick(self, state: State) -> None:
        """Say what changed."""
        if state is not self._state:
            self._state = state
            for text in self._changes(state):
                self.say(text)
        if time.monotonic() - self._noted >= NOTE_S:
            self._noted = time.monotonic()
            for line in self._moved(_live_lines(state, store=self._store))[:20]:
                self.say(progress_words(line))

    def _changes(self, state: State) -> Iterator[str]:
        first = not self._began
        self._began = True
        if first:
            yield ", ".join(f"{count:,} {word}" for word, count in counts(state).items())
        if state.paused != self._paused:
            yield f"paused: {state.paused}" if state.paused else f"goes on; it was paused: {self._paused}"
            self._paused = state.paused
        for vertex, stage in state.rows():
            # A job that waits for its turn says nothing; its stage is RUNNING when the job is.
            if self._last.get(vertex.key) is stage.status or is_queued(stage):
                continue
            self._last[vertex.key] = stage.status
            # At the start a thousand waiting stages are one count, not a thousand lines.
            if stage.status not in (Status.WAITING, Status.READY) and not (first and stage.status is Status.DONE):
                yield f"{vertex.node.name} {stage.status.value} {one_line(stage.why)}".rstrip()

    def _moved(self, lines: Sequence[Line]) -> list[Line]:
        """Those that have something to say since they were told of last."""
        told, self._told = self._told, {line.key: line for line in lines}
        return [line for line in lines if line.key not in told or _mark(told[line.key]) != _mark(line)]


def display(store: Store) -> LiveDisplay | PlainDisplay:
    """What suits stderr."""
    return LiveDisplay(store) if movable(sys.stderr) else PlainDisplay(store)


def progress_words(line: Line) -> str:
    """phase1 12,800 of 32,000 images, 950/s, 20 s left, loss 0.82; or phase1 queued."""
    if line.state == QUEUED:
        return f"{line.name} queued"
    words = [
        f"{line.images:,} of {line.total:,}" if line.images is not None and line.total else line.phase or "starting"
    ]
    if line.images_per_s:
        words.append(f"{line.images_per_s:,.0f}/s")
    if line.eta_s is not None:
        words.append(f"{duration(line.eta_s)} left")
    if line.loss is not None:
        words.append(f"loss {line.loss:.4g}")
    return f"{line.name} {', '.join(words)}"


def _mark(line: Line) -> tuple[object, ...]:
    return line.state, line.phase, line.images


def _live_lines(state: State, *, store: Store) -> Sequence[Line]:
    keys = [vertex.key for vertex, stage in state.rows() if stage.status in LIVE]
    return overview(state, store=store, keys=keys) if keys else ()


def _failures(state: State) -> list[tuple[str, str]]:
    if not state.counts.get(Status.FAILED):
        return []
    failed = [(v.node.name, s.why) for v, s in state.rows() if s.status is Status.FAILED]
    return failed[-SHOWN_FAILURES:]


def _table(lines: Sequence[Line], *, width: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    shown = next(names for least, names in COLUMNS if width >= least)
    for name in shown:
        justify: Literal["left", "right"] = "left" if name in ("stage", "progress") else "right"
        if name:
            table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis")
        else:
            table.add_column("", no_wrap=True, overflow="ellipsis", style="dim", ratio=1)
    for line in lines:
        cells = _cells(line)
        table.add_row(*(cells[name] for name in shown))
    return table


def _cells(line: Line) -> dict[str, RenderableType]:
    known = line.images is not None and bool(line.total)
    share = (line.images or 0) / (line.total or 1)
    return {
        "stage": line.name,
        "progress": ProgressBar(total=1.0, completed=share, width=20, pulse=False) if known else Text(" " * 20),
        "%": f"{100 * share:.0f}" if known else "",
        "images/s": f"{line.images_per_s:,.0f}" if line.images_per_s else "",
        "ETA": duration(line.eta_s) if line.eta_s is not None else "",
        "loss": f"{line.loss:.4g}" if line.loss is not None else "",
        "try": str(line.attempts),
        "": "queued" if line.state == QUEUED else line.phase if line.state == "RUNNING" else one_line(line.why),
    }


def _counts(state: State) -> Text:
    text = Text()
    for word, count in counts(state).items():
        text.append(f"{count:,} {word.lower()}  ", style=COUNT_STYLES.get(word, ""))
    if state.paused:
        text.append(f"paused: {state.paused}", style="bold red")
    return text


@contextmanager
def shown(store: Store) -> Iterator[LiveDisplay | PlainDisplay]:
    """A display for the length of a block."""
    with display(store) as one:
        yield one
