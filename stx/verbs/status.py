"""`stx status`: the stages of experiments, now. It needs no coordinator and disturbs none."""

import sys
import time
from collections.abc import Sequence

from stx.coordinator.status import Line, Observer, Overview
from stx.errors import ConfigError
from stx.report.words import duration, one_line
from stx.verbs import console
from stx.verbs.select import Chosen, choose, existing_store

STATE_STYLES = {
    "RUNNING": "green",
    "QUEUED": "cyan",
    "DONE": "dim",
    "FAILED": "red",
    "BLOCKED": "red",
    "ENDED": "yellow",
}
WATCH_S = 2.0
HEADER = ("stage", "key", "state", "images", "%", "images/s", "ETA", "loss", "seen", "tries", "job", "why")
RIGHT = frozenset({"images", "%", "images/s", "ETA", "loss", "seen", "tries"})
KEPT = frozenset({"stage", "key", "state", "tries"})
CLEAR = "\033[H\033[2J"


def run(pattern: str | None, *, store: str | None, watch: bool, as_json: bool) -> None:
    """The verb `status`."""
    if watch and as_json:
        raise ConfigError("--watch and --json exclude each other", hint="ask for --json as often as you like")
    place = existing_store(store)
    chosen = choose(place, pattern)
    observers = [(one, Observer(place, experiment=place.experiment(one.experiment), graph=one.graph)) for one in chosen]
    if watch:
        _watch(observers)
        return
    looks = [_look(one, observer) for one, observer in observers]
    if as_json:
        console.out_json({"experiments": [look.dump() for look in looks]})
        return
    brief = pattern is None and len(looks) > 1
    console.out(_brief(looks) if brief else "\n\n".join(_full(look) for look in looks))
    sys.stdout.flush()
    _suggest(looks, brief=brief)


def _look(one: Chosen, observer: Observer) -> Overview:
    return observer.look(keys=None if one.whole else [node.key for node in one.nodes])


def _watch(observers: Sequence[tuple[Chosen, Observer]]) -> None:
    """Redraw until everything rests or the person leaves."""
    while True:
        looks = [_look(one, observer) for one, observer in observers]
        text = "\n\n".join(_full(look) for look in looks)
        console.out((CLEAR if sys.stdout.isatty() else "") + text)
        sys.stdout.flush()
        if all(look.driver is None for look in looks):
            _suggest(looks, brief=False)
            return
        time.sleep(WATCH_S)


def _suggest(looks: Sequence[Overview], *, brief: bool) -> None:
    failed = [(look.experiment, line) for look in looks for line in look.lines if line.state == "FAILED"]
    if brief:
        console.next_commands(f"stx status {looks[0].experiment}")
    elif failed:
        experiment, line = failed[0]
        console.next_commands(f"stx logs {line.name} --failed", f"stx retry {experiment}/{line.name}")
    elif any(look.driver is None and set(look.counts) - {"DONE"} for look in looks):
        console.next_commands("stx submit FILE   (the same file goes on where it stopped)")
    elif any(look.driver for look in looks):
        console.next_commands(f"stx status {looks[0].experiment} --watch")
    elif looks:
        console.next_commands(f"stx report {looks[0].experiment}")


def _brief(looks: Sequence[Overview]) -> str:
    rows = [(look.experiment, _driver(look), _counts(look)) for look in looks]
    return console.table(("experiment", "coordinator", "stages"), rows)


def _counts(look: Overview) -> str:
    return ", ".join(f"{count:,} {state}" for state, count in sorted(look.counts.items()))


def _driver(look: Overview) -> str:
    if look.driver:
        return f"on {look.driver.host} (process {look.driver.pid})"
    if look.journal_age_s is None:
        return "never started"
    return f"journal from {duration(look.journal_age_s)} ago, coordinator gone"


def _full(look: Overview) -> str:
    rest = _driver(look)
    if look.driver is None and set(look.counts) <= {"DONE"} and look.lines:
        rest = f"finished {duration(look.journal_age_s)} ago"
    head = f"{look.experiment}: {_counts(look)}; {rest}"
    parts = [console.styled(head, "bold", stream=sys.stdout)]
    if look.trouble:
        parts.append(console.styled(f"paused: {look.trouble}", "red", stream=sys.stdout))
    rows = [row(line) for line in look.lines]
    used = [c for c, name in enumerate(HEADER) if name in KEPT or any(r[c] not in {"", "-"} for r in rows)]
    styles = [STATE_STYLES.get(r[2], "") for r in rows]
    header = tuple(HEADER[column] for column in used)
    cells = [tuple(one[column] for column in used) for one in rows]
    return "\n".join([*parts, console.table(header, cells, right=RIGHT, styles=styles)])


def row(line: Line) -> tuple[str, ...]:
    """A stage in the columns of HEADER."""
    percent = f"{100 * line.images / line.total:.0f}" if line.total and line.images is not None else "-"
    return (
        line.name,
        line.key[:8],
        line.state,
        "-" if line.images is None else f"{line.images:,}",
        percent,
        "-" if line.images_per_s is None else f"{line.images_per_s:,.0f}",
        duration(line.eta_s),
        "-" if line.loss is None else f"{line.loss:.4g}",
        duration(line.heartbeat_age_s),
        str(line.attempts),
        line.job_id or "-",
        one_line(line.why),
    )
