"""`stx status`, `stx show`, `stx logs`, `stx report`: verbs that read the store. They need no coordinator and disturb
none.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.files import AttemptDir
from stx import records
from stx.coordinator.prepare import writing
from stx.coordinator.status import Line, Observer, Overview
from stx.errors import ConfigError
from stx.paths import StageDir, Store
from stx.report import history
from stx.report.words import duration, one_line, plain, plural
from stx.spec import Node
from stx.verbs import console
from stx.verbs.select import Chosen, choose, choose_one, existing_store, one_experiment

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


def status(pattern: str | None, *, store: str | None, watch: bool, as_json: bool) -> None:
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


def show(pattern: str, *, store: str | None, as_json: bool) -> None:
    """The verb `show`: everything about one stage."""
    place = existing_store(store)
    chosen, node = choose_one(place, pattern)
    stage = place.stage(node.spec.kind, node.key)
    observer = Observer(place, experiment=place.experiment(chosen.experiment), graph=chosen.graph)
    line = observer.look(keys=[node.key]).lines[0]
    attempts = history.attempts(stage)
    if as_json:
        record = {"experiment": chosen.experiment, "path": str(stage.path), "node": node.dump(), "status": line.dump()}
        tries = [{"number": a.number, "result": a.result, "cause": a.cause, "message": a.message} for a in attempts]
        console.out_json(record | {"attempts": tries, "results": _results(stage, node)})
        return
    console.out(f"{node.name}  ({node.spec.kind}, key {node.key})\nin {stage.path}\n{line.state}  {line.why}".rstrip())
    console.out(
        "\noptions in the key:\n" + "\n".join(f"  {name}: {plain(value)}" for name, value in node.spec.science.items())
    )
    sources = [f"  {name}: {_source(chosen, value.key)}" for name, value in node.spec.inputs.items()]
    if sources:
        console.out("\ninputs:\n" + "\n".join(sources))
    rows = [
        (str(a.number), a.result, a.cause, duration(a.seconds), str(a.ranks), one_line(a.message)) for a in attempts
    ]
    if rows:
        console.out("\n" + console.table(("attempt", "result", "cause", "time", "ranks", "message"), rows))
    results = [(str(r["images"] or "-"), str(r["digest"])[:16], str(r["path"])) for r in _results(stage, node)]
    if results:
        console.out("\n" + console.table(("images seen", "payload digest", "path"), results))
    sys.stdout.flush()
    console.next_commands(f"stx logs {node.name}")


def _source(chosen: Chosen, key: str) -> str:
    return next((f"{node.name} ({key[:8]})" for node in chosen.graph.nodes if node.key == key), key[:8])


def _results(stage: StageDir, node: Node) -> list[dict[str, Any]]:
    """All that is published, wanted here or not."""
    kind = node.spec.kind
    parts = (
        [(images, stage.part(kind, images)) for images in stage.parts(kind)] if node.grows else [(None, stage.result)]
    )
    found = []
    for images, part in parts:
        record = records.find(part.artifact)
        with records.understood(part.artifact):
            if record is not None:
                found.append({"images": images, "path": str(part.path), "digest": record["digest"]})
    return found


def logs(pattern: str, *, store: str | None, follow: bool, rank: int, attempt: int | None, failed: bool) -> None:
    """The verb `logs`: one rank's output of one attempt, the last one unless asked."""
    place = existing_store(store)
    chosen, node = choose_one(place, pattern)
    stage = place.stage(node.spec.kind, node.key)
    number = _attempt_number(stage, node=node, attempt=attempt, failed=failed)
    folder = stage.attempt(number)
    path = folder.log(rank)
    if not path.exists():
        path = _other_log(folder, rank=rank)
    console.say(console.styled(f"{node.name} attempt {number}: {path}", "dim", stream=sys.stderr))
    position = _copy(path, start=0)
    while follow and not _is_over(folder):
        time.sleep(0.5)
        position = _copy(path, start=position)
    _copy(path, start=position)
    if not follow:
        more = [] if _is_over(folder) else [f"stx logs {node.name} -f"]
        console.next_commands(*more, f"stx show {chosen.experiment}/{node.name}")


def _attempt_number(stage: StageDir, *, node: Node, attempt: int | None, failed: bool) -> int:
    numbers = stage.attempts()
    if failed:
        numbers = [a.number for a in history.attempts(stage) if a.result in {"FAILED", "LOST"}]
    if attempt is not None:
        if attempt in numbers:
            return attempt
        raise ConfigError(
            f"{node.name} has no attempt {attempt}", hint=f"there are: {', '.join(map(str, numbers)) or 'none'}"
        )
    if not numbers:
        which = "failed attempt" if failed else "attempt"
        raise ConfigError(
            f"{node.name} has no {which} yet", where=str(stage.path), hint="`stx status` says what it waits for"
        )
    return numbers[-1]


def _other_log(folder: AttemptDir, *, rank: int) -> Path:
    """A rank that never started leaves the supervisor's words only."""
    ranks = sorted(path.name for path in folder.path.glob("rank-*.log"))
    if ranks:
        raise ConfigError(f"no log of rank {rank}", where=str(folder.path), hint=f"there are: {', '.join(ranks)}")
    if folder.supervisor_log.exists():
        return folder.supervisor_log
    raise ConfigError(
        "no log yet: the job has not started", where=str(folder.path), hint="`stx status` says what it waits for"
    )


def _copy(path: Path, *, start: int) -> int:
    """Everything from a position on to stdout, as bytes; the new position."""
    with path.open("rb") as stream:
        stream.seek(start)
        while chunk := stream.read(1 << 20):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return stream.tell()


def _is_over(folder: AttemptDir) -> bool:
    return folder.outcome(0).exists() or folder.verdict.exists()


def report(name: str, *, store: str | None, as_json: bool) -> None:
    """The verb `report`: writes report/report.md and its figures, prints the path; the scores go to stderr."""
    from stx.report import markdown, tables
    from stx.report.collect import collect

    place: Store = existing_store(store)
    experiment = one_experiment(place, name)
    facts = collect(place, experiment)
    with writing(experiment.report):
        path = markdown.write(facts, experiment=experiment)
    if as_json:
        scores = [
            {
                "series": score.series.label,
                "run": score.run,
                "seed": score.seed,
                "scores_stage": score.judge,
                "images": score.images,
                "total_compute": score.compute,
                "scores": dict(score.values),
                "protocol": dict(score.protocol),
            }
            for score in facts.scores
        ]
        console.out_json({"experiment": name, "report": str(path), "scores": scores})
        return
    if facts.scores:
        table = tables.summary(facts)
        console.say(console.table(table.header, table.rows, right=table.numeric, stream=sys.stderr))
    finished = sum(stage.finished for stage in facts.stages)
    console.say(f"report over {finished} of {plural(len(facts.stages), 'stage')}:")
    console.out(os.fspath(path))
