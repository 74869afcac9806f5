"""A whole terminal, drawn in place: only the lines that changed are written, so that nothing flickers, and a screen of
a thousand stages costs a slow connection a few hundred bytes.

The screen is the terminal's alternate one: what was there before comes back when the watch ends, however it ends.
"""

import os
import shutil
import signal
import sys
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any, Self, TextIO

from stx.verbs import console
from stx.verbs.columns import Row, cut

# Alternate screen, no cursor, no wrapping of lines; and back.
ENTER = "\033[?1049h\033[?25l\033[?7l"
LEAVE = "\033[?7h\033[?25h\033[?1049l"
CLEAR = "\033[2J"
# Terminals that know these show a whole frame at once; others ignore them.
BEGIN, END = "\033[?2026h", "\033[?2026l"


def movable(stream: TextIO) -> bool:
    """A terminal whose cursor can be moved."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class Screen:
    """Use it in a `with` block, in the main thread: it comes back from Ctrl-Z, and gives the terminal back on TERM."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._drawn: list[str] = []
        self._size = (0, 0)
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._write(ENTER)
        self._handlers = {
            number: signal.signal(number, handler)
            for number, handler in ((signal.SIGTSTP, self._suspend), (signal.SIGTERM, _terminated))
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._write(LEAVE)

    @staticmethod
    def size() -> tuple[int, int]:
        """Columns and lines, now."""
        found = shutil.get_terminal_size()
        return found.columns, found.lines

    def draw(self, rows: Sequence[Row], *, size: tuple[int, int]) -> None:
        """Show these rows, made for a terminal of this size; what stands there already is not written again."""
        columns, lines = size
        fresh = [console.styled(cut(row.text, columns), row.style, stream=self._stream) for row in rows[:lines]]
        if size != self._size:
            self._size, self._drawn = size, []
            self._write(CLEAR)
        old = self._drawn + [""] * (len(fresh) - len(self._drawn))
        new = fresh + [""] * (len(self._drawn) - len(fresh))
        changed = [
            f"\033[{number};1H{text}\033[K"
            for number, (before, text) in enumerate(zip(old, new, strict=True), start=1)
            if before != text
        ]
        if changed:
            self._write(BEGIN + "".join(changed) + END)
        self._drawn = fresh

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def _suspend(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-Z: the shell gets its screen; when it brings us back, everything is drawn anew."""
        self._write(LEAVE)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.signal(number, self._suspend)
        self._size = (0, 0)
        self._write(ENTER)


def _terminated(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
