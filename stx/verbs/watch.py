"""`stx status --watch`: on a terminal a screen that is drawn in place, elsewhere a line for each change of state.

It shows what a coordinator does, asks nothing of it, and ends when none drives what is watched.
"""

import sys
import time
from collections.abc import Sequence

from stx.coordinator.status import Overview
from stx.report.words import one_line
from stx.verbs import console
from stx.verbs.columns import Row
from stx.verbs.listing import Wish, counted, filtered
from stx.verbs.screen import Screen, movable
from stx.verbs.status import Watched, briefly, view

WATCH_S = 2.0
RESIZE_S = 0.2


def watch(watched: Sequence[Watched], wish: Wish, *, brief: bool) -> list[Overview]:
    """Show them until nobody drives any of them; the last look."""
    return _drawn(watched, wish, brief=brief) if movable(sys.stdout) else _told(watched, wish)


def _drawn(watched: Sequence[Watched], wish: Wish, *, brief: bool) -> list[Overview]:
    with Screen(sys.stdout) as screen:
        while True:
            looks = [one.look() for one in watched]
            if not any(look.driver for look in looks):
                return looks
            due = time.monotonic() + WATCH_S
            while time.monotonic() < due:
                size = screen.size()
                screen.draw(frame(looks, wish, brief=brief, width=size[0], height=size[1]), size=size)
                _sleep(screen, size, until=due)


def _sleep(screen: Screen, size: tuple[int, int], *, until: float) -> None:
    """Until it is time, or until the terminal has another size."""
    while time.monotonic() < until and screen.size() == size:
        time.sleep(RESIZE_S)


def frame(looks: Sequence[Overview], wish: Wish, *, brief: bool, width: int, height: int) -> list[Row]:
    """Everything in one screen; several experiments share it."""
    foot = Row(f"{time.strftime('%H:%M:%S')}  Ctrl-C leaves, nothing stops", "dim")
    room = max(1, height - 1)
    if brief:
        return [*briefly(looks, width=width)[:room], foot]
    share = max(1, room // max(1, len(looks)))
    rows = [row for look in looks for row in view(look, wish, width=width, height=share)]
    return [*rows[:room], foot]


def _told(watched: Sequence[Watched], wish: Wish) -> list[Overview]:
    """A line for each stage whose state changed; what is so at the start is told by counts, at the end by the table."""
    before: dict[tuple[str, str], str] = {}
    while True:
        looks = [one.look() for one in watched]
        if not any(look.driver for look in looks):
            return looks
        for look in looks:
            if not before:
                console.out(f"{time.strftime('%H:%M:%S')} {look.experiment}: {counted(look.counts)}")
            for line in filtered(look.lines, wish.states):
                if before.get((look.experiment, line.name), line.state) != line.state:
                    console.out(f"{time.strftime('%H:%M:%S')} {line.name} {line.state} {one_line(line.why)}".rstrip())
        before = {(look.experiment, line.name): line.state for look in looks for line in look.lines}
        sys.stdout.flush()
        time.sleep(WATCH_S)
