"""`stx show`: everything about one stage."""

import sys
from typing import Any

from stx import records
from stx.coordinator.status import Observer
from stx.paths import StageDir
from stx.report import history
from stx.report.words import duration, one_line, plain
from stx.spec import Node
from stx.verbs import console
from stx.verbs.select import Chosen, choose_one, existing_store


def run(pattern: str, *, store: str | None, as_json: bool) -> None:
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
