"""`stx show`: everything about one stage, and how it differs from another one."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from stx import records
from stx.config.defaults import Told, told
from stx.coordinator.status import Line, Observer
from stx.paths import StageDir, Store
from stx.report import history
from stx.report.history import AttemptFacts
from stx.report.words import duration, one_line, plain
from stx.spec import Input, Node
from stx.stages.base import kind_named
from stx.verbs import advice, compare, console
from stx.verbs.select import Chosen, choose_one, existing_store

ATTEMPTS = ("attempt", "result", "cause", "time", "ranks", "redone", "host", "code", "message")


def run(pattern: str, *, against: str | None, store: str | None, as_json: bool) -> None:
    """The verb `show`."""
    place = existing_store(store)
    chosen, node = choose_one(place, pattern)
    if against is not None:
        _against(chosen, node, choose_one(place, against, near=chosen.experiment), as_json=as_json)
        return
    stage = place.stage(node.spec.kind, node.key)
    observer = Observer(place, experiment=place.experiment(chosen.experiment), graph=chosen.graph)
    line = observer.look(keys=[node.key]).lines[0]
    attempts = history.attempts(stage)
    if as_json:
        record = {"experiment": chosen.experiment, "path": str(stage.path), "node": node.dump(), "status": line.dump()}
        options = [asdict(one) for one in _options(node, role="science")]
        tries = [asdict(one) for one in attempts]
        console.out_json(record | {"options": options, "attempts": tries, "results": _results(stage, node)})
        return
    console.out("\n\n".join(_parts(place, chosen, node, line, attempts)))
    sys.stdout.flush()
    name = advice.stage(chosen.experiment, node.name)
    logs = f"stx logs {name}" + (" --failed" if line.state == "FAILED" else "")
    console.next_commands(*([logs] if attempts else []), f"stx show {name} --against OTHER")


def _against(chosen: Chosen, node: Node, other: tuple[Chosen, Node], *, as_json: bool) -> None:
    found = compare.compare(node, other[1], graphs=(chosen.graph, other[0].graph))
    if as_json:
        experiments = {"here": chosen.experiment, "there": other[0].experiment}
        console.out_json({"experiments": experiments, "same": found.same, "difference": found.dump()})
    else:
        console.out("\n".join(compare.words(found)))


def _parts(place: Store, chosen: Chosen, node: Node, line: Line, attempts: Sequence[AttemptFacts]) -> list[str]:
    """The sections that have something in them."""
    stage = place.stage(node.spec.kind, node.key)
    parts = [f"{node.name}  ({node.spec.kind}, key {node.key})\nin {stage.path}\n{line.state}  {line.why}".rstrip()]
    for title, role in (("options in the key", "science"), ("options out of the key", "where")):
        options = _options(node, role=role)
        if options:
            parts.append(f"{title} (d: the default):\n{_options_table(options)}")
    if node.wants:
        parts.append(f"wanted at images seen: {', '.join(f'{images:,}' for images in node.wants)}")
    sources = [f"  {name}: {_source(chosen, value)}" for name, value in node.spec.inputs.items()]
    if sources:
        parts.append("inputs:\n" + "\n".join(sources))
    if attempts:
        rows = [_row(one) for one in attempts]
        parts.append(
            console.table(ATTEMPTS, rows, right=frozenset({"ranks", "redone"}), drop=("code", "host", "redone"))
        )
    spread = ran_as(attempts)
    if spread:
        parts.append("ran as: " + "; ".join(spread))
    stacks = [str(path) for one in attempts for path in stage.attempt(one.number).all_stacks()]
    if stacks:
        parts.append("where the threads were when an attempt hung:\n" + "\n".join(f"  {path}" for path in stacks))
    printed = [str(path) for one in attempts for path in sorted(stage.attempt(one.number).scheduler_logs.glob("*.out"))]
    if printed:
        parts.append("what its jobs printed besides the ranks:\n" + "\n".join(f"  {path}" for path in printed))
    versions = next((one.versions for one in reversed(attempts) if one.versions), {})
    if versions:
        parts.append("ran with: " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())))
    results = [
        (f"{r['images']:,}" if r["images"] else "-", str(r["digest"])[:16], str(r["path"]))
        for r in _results(stage, node)
    ]
    if results:
        parts.append(
            console.table(("images seen", "payload digest", "path"), results, right=frozenset({"images seen"}))
        )
    return parts


def ran_as(attempts: Sequence[AttemptFacts]) -> list[str]:
    """The layouts of the attempts, each with those that had it: 2 ranks, ZeRO 1 (attempt 1, 2)."""
    groups: dict[str, list[str]] = {}
    for one in attempts:
        if one.layout:
            groups.setdefault(one.layout, []).append(str(one.number))
    return [f"{words} (attempt {', '.join(numbers)})" for words, numbers in groups.items()]


def _options(node: Node, *, role: str) -> list[Told]:
    values: Mapping[str, Any] = node.spec.science if role == "science" else node.where
    return told(kind_named(node.spec.kind).options, values, role=role)


def _options_table(options: Sequence[Told]) -> str:
    width = max(len(one.path) for one in options)
    return "\n".join(f"  {'d' if one.default else ' '} {one.path.ljust(width)}  {plain(one.value)}" for one in options)


def _source(chosen: Chosen, source: Input) -> str:
    name = next((node.name for node in chosen.graph.nodes if node.key == source.key), source.kind)
    at = f" at {source.images:,} images" if source.images is not None else ""
    return f"{name}{at} ({source.kind} {source.key[:8]})"


def _row(attempt: AttemptFacts) -> tuple[str, ...]:
    return (
        str(attempt.number),
        attempt.result,
        attempt.cause or "-",
        duration(attempt.seconds),
        str(attempt.ranks),
        f"{attempt.recomputed_images:,}",
        attempt.host or "-",
        attempt.code[:8] or "-",
        one_line(attempt.message),
    )


def _results(stage: StageDir, node: Node) -> list[dict[str, Any]]:
    """All that is published, wanted here or not."""
    kind = node.spec.kind
    parts = (
        [(images, stage.part(kind, images)) for images in stage.parts(kind)] if node.grows else [(None, stage.result)]
    )
    found = []
    for images, part in parts:
        record = records.find(part.artifact, limit=records.ARTIFACT_BYTES)
        with records.understood(part.artifact):
            if record is not None:
                made = {"images": images, "path": str(part.path), "digest": record["digest"], "files": record["files"]}
                found.append(made)
    return found
