"""`stx status`: the stages of experiments, now. It needs no coordinator and disturbs none."""

import contextlib
import sys
import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime

from stx.coordinator.status import Left, Line, Observer, Overview
from stx.errors import ConfigError
from stx.paths import Store
from stx.report.words import duration, one_line
from stx.verbs import advice, columns, console, listing
from stx.verbs.columns import Row
from stx.verbs.listing import ENDED, STATES, Group, Wish, counted
from stx.verbs.select import Chosen, choose, existing_store

STATE_STYLES = {
    "RUNNING": "green",
    "QUEUED": "cyan",
    "DONE": "dim",
    "FAILED": "red",
    "BLOCKED": "red",
    "ENDED": "yellow",
}
LEFT = {
    Left.ENDED: "ended {} ago",
    Left.INTERRUPTED: "left {} ago (Ctrl-C)",
    Left.LEFT: "left {} ago",
    Left.FAILED: "an error ended it {} ago",
}
HEADER = (
    *("stage", "key", "state", "images", "%", "images/s", "ETA", "loss", "seen", "tries", "ranks", "job", "nodes"),
    "why",
)
RIGHT = frozenset({"images", "%", "images/s", "ETA", "loss", "seen", "tries", "ranks"})
KEPT = frozenset({"stage", "key", "state", "tries"})
# What a narrow terminal does without, in this order.
DROPPED = ("key", "ranks", "job", "nodes", "seen", "tries", "images", "loss", "images/s", "ETA")
GROUPS_DROPPED = ("points", "images/s", "WAITING", "READY", "BLOCKED", "QUEUED", "slowest ETA", "DONE")
NARROW = 100  # below, reasons have lines of their own under the table
REASONS = frozenset({"FAILED", ENDED})
SHOWN_REASONS = 3
SHOWN_LOGS = 3  # of so many stages that failed, and no more, the log's end is shown
LOG_LINES = 6


class Watched:
    """Some stages of one experiment, looked at again and again."""

    def __init__(self, store: Store, chosen: Chosen) -> None:
        self._observer = Observer(store, experiment=store.experiment(chosen.experiment), graph=chosen.graph)
        self._keys = None if chosen.whole else [node.key for node in chosen.nodes]

    def look(self) -> Overview:
        """They now."""
        return self._observer.look(keys=self._keys)


def run(pattern: str | None, *, store: str | None, watch: bool, as_json: bool, wish: Wish) -> None:
    """The verb `status`."""
    if watch and as_json:
        raise ConfigError(
            "the two exclude each other", where="stx status --watch --json", hint="ask for --json as often as you like"
        )
    place = existing_store(store)
    watched = [Watched(place, one) for one in choose(place, pattern)]
    brief = pattern is None and len(watched) > 1 and not wish.states
    if watch:
        from stx.verbs import watch as watching

        looks = watching.watch(watched, wish, brief=brief)
    else:
        looks = [one.look() for one in watched]
    if as_json:
        console.out_json({"experiments": [_dumped(look, wish) for look in looks]})
        return
    width = console.width_of(sys.stdout)
    parts = [briefly(looks, width=width)] if brief else [view(look, wish, width=width) for look in looks]
    console.out("\n\n".join(console.lines(rows, stream=sys.stdout) for rows in parts))
    sys.stdout.flush()
    _suggest(looks, wish, brief=brief)


def _dumped(look: Overview, wish: Wish) -> Mapping[str, object]:
    """All that was asked for, and never folded."""
    lines = listing.ordered(listing.filtered(look.lines, wish.states), wish.sort)
    return look.dump() | {"stages": [line.dump() for line in lines]}


def _suggest(looks: Sequence[Overview], wish: Wish, *, brief: bool) -> None:
    failed = [(look.experiment, line) for look in looks for line in look.lines if line.state == "FAILED"]
    if brief:
        console.next_commands(f"stx status {looks[0].experiment}")
    elif failed:
        console.next_commands(*advice.after_failure(*failed[0]))
    elif any(look.driver is None and set(look.counts) - {"DONE"} for look in looks):
        console.next_commands("stx submit FILE   (the same file goes on where it stopped)")
    elif any(look.driver for look in looks):
        console.next_commands(f"stx status {looks[0].experiment} --watch")
    elif looks:
        console.next_commands(f"stx report {looks[0].experiment}")


def briefly(looks: Sequence[Overview], *, width: int) -> list[Row]:
    """Several experiments, one line each."""
    rows = [(look.experiment, _driver(look), counted(look.counts)) for look in looks]
    return columns.table(("experiment", "coordinator", "stages"), rows, width=width, drop=("coordinator",))


def _driver(look: Overview) -> str:
    if look.driver:
        job = f", job {look.driver.job_id}" if look.driver.job_id else ""
        return f"on {look.driver.host} (process {look.driver.pid}{job})"
    if look.next_job:
        return f"no process now, job {look.next_job} comes next"
    if look.journal_age_s is None:
        return "never started"
    if look.left:
        return LEFT[look.left].format(duration(look.journal_age_s))
    return f"journal from {duration(look.journal_age_s)} ago, coordinator gone"


def view(look: Overview, wish: Wish, *, width: int = 0, height: int | None = None) -> list[Row]:
    """One experiment as lines, none longer than `width` (0: no limit), no more than `height` (None: as many as it
    takes).
    """
    head = _head(look, width=width)
    narrow = 0 < width < NARROW
    failed = [line for line in listing.filtered(look.lines, wish.states) if line.state in REASONS and line.why]
    reasons = _reasons(failed[:SHOWN_REASONS], width=width, wrapped=height is None) if narrow else []
    room = None if height is None else max(0, height - len(head) - len(reasons))
    found = listing.listing(look.lines, wish, room=room)
    rows = [*head, *_groups(found.groups, width=width), *_lines(found.lines, width=width, reasons=not narrow), *reasons]
    if height is None and len(quoted := [line for line in failed if line.log_tail]) <= SHOWN_LOGS:
        rows += [part for line in quoted for part in _log(line, width=width)]
    if found.left_out:
        more = f"and {sum(found.left_out.values()):,} more: {counted(found.left_out)}"
        plain = [more] if height is not None else _wrapped(f"{more} (--all lists them)", width)
        rows += [Row(text, "dim") for text in plain]
    if not found.lines and not found.groups and wish.states:
        rows.append(Row(f"no stage is {' or '.join(state for state in STATES if state in wish.states)}"))
    return rows[:height]


def _head(look: Overview, *, width: int) -> list[Row]:
    rest = _driver(look)
    if look.driver is None and set(look.counts) <= {"DONE"} and look.lines:
        rest = f"finished {duration(look.journal_age_s)} ago"
    rows = [Row(text, "bold") for text in _wrapped(f"{look.experiment}: {counted(look.counts)}; {rest}", width)]
    bad = [f"paused: {look.trouble}"] * bool(look.trouble) + [f"error: {look.error}"] * bool(look.error)
    return rows + [Row(text, "red") for line in bad for text in _wrapped(line, width)]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ") if width else [text]


def _groups(groups: Sequence[Group], *, width: int) -> list[Row]:
    if not groups:
        return []
    states = [state for state in STATES if any(state in one.counts for one in groups)]
    header = ("sweep", "points", *states, "%", "images/s", "slowest ETA")
    rows = [
        (
            one.name,
            f"{one.size:,}",
            *(f"{one.counts.get(state, 0):,}" for state in states),
            "-" if one.share is None else f"{100 * one.share:.0f}",
            _rate(one.images_per_s),
            duration(one.eta_s),
        )
        for one in groups
    ]
    styles = [STATE_STYLES.get(one.state, "") for one in groups]
    return columns.table(header, rows, right=frozenset(header[1:]), styles=styles, width=width, drop=GROUPS_DROPPED)


def _lines(lines: Sequence[Line], *, width: int, reasons: bool) -> list[Row]:
    if not lines:
        return []
    rows = [row(line, causes=True) for line in lines]
    if width and len(columns.fitting(HEADER, rows, right=RIGHT, width=width, drop=DROPPED)) < len(HEADER):
        rows = [row(line) for line in lines]
    used = [c for c, name in enumerate(HEADER) if name in KEPT or any(r[c] not in {"", "-"} for r in rows)]
    if not reasons:
        used = [column for column in used if HEADER[column] != "why"]
    return columns.table(
        tuple(HEADER[column] for column in used),
        [tuple(one[column] for column in used) for one in rows],
        right=RIGHT,
        styles=[STATE_STYLES.get(line.state, "") for line in lines],
        width=width,
        drop=DROPPED,
    )


def _reasons(lines: Sequence[Line], *, width: int, wrapped: bool) -> list[Row]:
    """Why stages failed, where the table has no column for it."""
    texts = [f"{line.name}: {one_line(line.why)}" for line in lines]
    return [Row(part, "red") for text in texts for part in (_wrapped(text, width) if wrapped else [text])]


def _log(line: Line, *, width: int) -> list[Row]:
    """The last lines that a stage which failed has printed."""
    head = f"{line.name} printed last, in {line.log}:"
    texts = [f"  {text}" for text in line.log_tail[-LOG_LINES:]]
    return [Row(head, "bold"), *(Row(columns.cut(text, width) if width else text) for text in texts)]


def tries(line: Line) -> str:
    """How many attempts there were, and what became of those that did not finish it: 3 (1 preempted, 1 NODE)."""
    causes = ", ".join(f"{count} {word}" for word, count in sorted(line.causes.items()))
    return f"{line.attempts} ({causes})" if causes else str(line.attempts)


def why(line: Line, *, now: datetime | None = None) -> str:
    """The reason in one line; of a job that waits also how long that may take, by this machine's clock."""
    words = one_line(line.why)
    with contextlib.suppress(ValueError):
        left = (datetime.fromisoformat(line.expected_start) - (now or datetime.now())).total_seconds()  # noqa: DTZ005
        return f"{words} (in {duration(left)})" if left > 0 else words
    return words


def _ranks(line: Line) -> str:
    """World size of a live attempt, where it is more than one rank."""
    ranks = int(line.layout["ranks"]) if line.layout else 1
    return str(ranks) if ranks > 1 else "-"


def row(line: Line, *, causes: bool = False) -> tuple[str, ...]:
    """A stage in the columns of HEADER."""
    percent = f"{100 * line.images / line.total:.0f}" if line.total and line.images is not None else "-"
    return (
        line.name,
        line.key[:8],
        line.state,
        "-" if line.images is None else f"{line.images:,}",
        percent,
        _rate(line.images_per_s),
        duration(line.eta_s),
        "-" if line.loss is None else f"{line.loss:.4g}",
        duration(line.heartbeat_age_s),
        tries(line) if causes else str(line.attempts),
        _ranks(line),
        (line.job_id or "-").partition(":")[0],  # the rest tells processes of one number apart
        line.nodes or "-",
        why(line),
    )


def _rate(images_per_s: float | None) -> str:
    return "-" if images_per_s is None else f"{images_per_s:,.0f}"
