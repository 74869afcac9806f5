"""`stx plan`: what a submit would do, with reasons, and what it would cost. Nothing is written. `submit` shows the
same before it starts.
"""

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

from stx import named, plan, records, sharing
from stx.config.cluster import Cluster, load_cluster
from stx.config.load import Experiment, load_experiment
from stx.coordinator import layouts
from stx.coordinator.layouts import Choice
from stx.coordinator.prepare import OTHER_NAME, check_format
from stx.coordinator.snapshot import running_science
from stx.errors import StoreError
from stx.paths import ExperimentDir, Store
from stx.plan import Bill, BillRow, PlanLine, Verb
from stx.report.words import duration, flops, plural, size
from stx.spec import Graph, Node
from stx.verbs import advice, console
from stx.verbs.launching import refusal_of
from stx.verbs.refuse import refuse_impossible
from stx.verbs.select import load_graph, store_root

FOLD_FROM = 100
FOLDED = 3
VERB_STYLES = {"cached": "dim", "attach": "cyan", "resume": "blue", "run": "green", "rerun": "yellow", "wait": ""}


@dataclass(frozen=True)
class Planned:
    """An experiment file as planned against a store. `previous` is the graph that was submitted last under its name;
    `chosen` are the layouts that a first attempt takes here, by kind.
    """

    file: Path
    experiment: Experiment
    cluster: Cluster
    store: Store
    graph: Graph
    previous: Graph | None
    lines: Sequence[PlanLine]
    bill: Bill
    chosen: Mapping[str, Choice]

    @property
    def directory(self) -> ExperimentDir:
        """Where the store keeps it."""
        return self.store.experiment(self.experiment.name)


def prepare(
    file: Path,
    *,
    sets: Sequence[str],
    cluster: str | None,
    store: str | None,
    change: Callable[[Experiment], Experiment] | None = None,
) -> Planned:
    """Load, validate, expand and compare with the store; every error of the file comes from here, before anything is
    written. `change` makes another experiment of it first.
    """
    experiment = load_experiment(file, sets=sets)
    experiment = experiment if change is None else change(experiment)
    where = load_cluster(cluster)
    place = Store(store_root(store, cluster_store=where.store))
    graph = plan.expand(experiment, where)
    try:
        sharing.open_store(place)
        check_format(place)
        sharing.refuse_other(place.experiment(experiment.name), hint=OTHER_NAME)
        previous = previous_graph(place.experiment(experiment.name))
        seen = plan.survey(graph, place)
    except OSError as error:
        raise StoreError(
            f"the store cannot be read: {error.strerror}",
            where=str(error.filename or place.root),
            hint="choose another --store",
        ) from error
    lines = plan.lines(graph, seen, previous=previous, place=place_in(experiment))
    refusal = refusal_of(where, place)
    refuse_impossible(lines, experiment=experiment, cluster=where, refusal=refusal)
    first = {node.spec.kind: node for node in graph.nodes}
    chosen = {kind: layouts.choose(layouts.planned(node, where), refusal=refusal) for kind, node in first.items()}
    bill = plan.bill(graph, lines, where, seen=seen, ranks={kind: one.ranks for kind, one in chosen.items()})
    return Planned(file, experiment, where, place, graph, previous, lines, bill, chosen)


def previous_graph(experiment: ExperimentDir) -> Graph | None:
    """What was submitted last under this name."""
    return load_graph(experiment) if experiment.graph.exists() else None


def place_in(experiment: Experiment) -> Callable[[Node, str], str]:
    """Where an option of a node stands in the experiment file."""
    return lambda node, option: experiment.where(node.stage, option, values=node.point)


def show(planned: Planned, *, every: bool, stream: TextIO) -> str:
    """The lines, the bill and the one-line summary."""
    parts = [lines_table(planned.lines, every=every, stream=stream), "", bill_table(planned.bill, stream=stream)]
    notes = [*batches(planned), *passed_over(planned), *teachers(planned.bill), *other_code(planned)]
    if notes:
        parts += ["", *notes]
    return "\n".join([*parts, "", summary(planned)])


def lines_table(lines: Sequence[PlanLine], *, every: bool, stream: TextIO) -> str:
    """One line per stage; in a large plan, neighbours of one sweep with the same verb are one line."""
    rows: list[tuple[str, ...]] = []
    fold = not every and len(lines) > FOLD_FROM
    for (stage, verb), group in groupby(lines, key=lambda line: (line.node.stage, str(line.verb))):
        members = list(group)
        if fold and len(members) > FOLDED:
            same = len({line.reason for line in members}) == 1
            rows.append(
                (f"{stage} ({len(members):,} points)", "-", verb, members[0].reason + ("" if same else ", ..."))
            )
        else:
            rows += [(line.node.name, line.node.key[:8], verb, line.reason) for line in members]
    styles = [VERB_STYLES.get(row[2], "") for row in rows]
    return console.table(("stage", "key", "verb", "reason"), rows, styles=styles, stream=stream)


def bill_table(bill: Bill, *, stream: TextIO) -> str:
    """What is still to be done, per stage of the file, and in all. Hours are estimates; a dash where nothing like it
    ever ran here.
    """
    header = ("stage", "nodes", "to do", "steps", "epochs", "FLOPs to do", "time to do", "storage")
    rows = [_bill_row(row, name=row.stage) for row in bill.rows] + [_bill_row(bill.total, name="total")]
    styles = [""] * len(bill.rows) + ["bold"]
    return console.table(header, rows, right=frozenset(header[1:]), styles=styles, stream=stream)


def _bill_row(row: BillRow, *, name: str) -> tuple[str, ...]:
    hours = duration(row.hours * 3600) if row.hours else "?"
    epochs = f"{row.epochs:.3g}" if row.epochs else "-"
    return (
        name,
        f"{row.nodes:,}",
        f"{row.todo:,}",
        f"{row.steps:,}" if row.steps else "-",
        epochs,
        flops(row.flops),
        hours if row.todo else "-",
        size(row.bytes) if row.bytes else "-",
    )


def batches(planned: Planned) -> list[str]:
    """How a global batch is made up, once per way: is 256 global or per GPU, and how many steps is that."""
    groups: dict[str, list[str]] = {}
    for node in planned.graph.nodes:
        if node.spec.kind != "train":
            continue
        layout = named.load("stx.stages", "train").layouts(node, planned.cluster)[planned.chosen["train"].number]
        parts = (
            f"{plural(layout['ranks'], 'rank')} x {layout['micro_batch']} images x {layout['accumulation']} accumulated"
        )
        total = int(node.spec.science["global_batch"])
        words = f"global batch {total} = {parts}; {node.wants[-1] // total:,} steps = {node.wants[-1]:,} images"
        groups.setdefault(words, []).append(node.stage)
    return [f"{', '.join(dict.fromkeys(stages))}: {words}" for words, stages in groups.items()]


def passed_over(planned: Planned) -> list[str]:
    """Of each kind with several layouts, those before the first that could ever start here."""
    return [
        f"{kind} stages: layout {one.number + 1} of cluster {planned.cluster.name} is used here; {number}: {why}"
        for kind, one in planned.chosen.items()
        for number, why in enumerate(one.passed, start=1)
    ]


def teachers(bill: Bill) -> list[str]:
    """Online against cached, for every teacher that phase-2 runs use, and what the times are based on."""
    lines = []
    for one in bill.teachers:
        online = f"online {flops(one.online_flops)}"
        cached = f"cached ({plural(one.draws, 'draw')}) {flops(one.cache_flops)} and {size(one.cache_bytes)}"
        chosen = "this file caches" if one.cached else "this file runs it online"
        lines.append(f"{one.teacher} for {plural(one.runs, 'run')}: {online}; {cached}; {chosen}")
    lines += [f"time of {kind}: {basis}" for kind, basis in bill.basis.items()]
    return lines


def other_code(planned: Planned) -> list[str]:
    """Stages whose newest checkpoint was written by other science code: their attempts refuse it unless told not to."""
    resumed = [line.node for line in planned.lines if line.verb == Verb.RESUME]
    ours = running_science() if resumed else ""
    names = [node.name for node in resumed if _science_of(planned.store, node) not in (None, ours)]
    if not names:
        return []
    return [
        f"checkpoints that other science code wrote: {', '.join(names)}; submit with {advice.ACCEPT_CODE} or they fail"
    ]


def _science_of(store: Store, node: Node) -> str | None:
    """The science digest in the newest checkpoint of a stage; None where none can be read: its attempt sees to that."""
    newest = store.stage(node.spec.kind, node.key).newest_checkpoint()
    with contextlib.suppress(StoreError):
        manifest = records.find(newest / "manifest.json", limit=records.MANIFEST_BYTES) if newest else None
        return str(manifest["science_digest"]) if manifest and "science_digest" in manifest else None
    return None


def summary(planned: Planned) -> str:
    """3 run, 12 cached."""
    counts: dict[str, int] = {}
    for line in planned.lines:
        counts[str(line.verb)] = counts.get(str(line.verb), 0) + 1
    words = ", ".join(f"{count:,} {verb}" for verb, count in counts.items())
    return f"{planned.experiment.name}: {words}; store {planned.store.root}"


def to_json(planned: Planned) -> dict[str, Any]:
    """The answer for programs."""
    return {
        "experiment": planned.experiment.name,
        "store": str(planned.store.root),
        "layouts": {kind: dict(one.option.layout) for kind, one in planned.chosen.items()},
        "stages": [
            {
                "name": line.node.name,
                "stage": line.node.stage,
                "kind": line.node.spec.kind,
                "key": line.node.key,
                "wants": list(line.node.wants),
                "verb": str(line.verb),
                "reason": line.reason,
            }
            for line in planned.lines
        ],
        "bill": {"rows": [_row_json(row) for row in planned.bill.rows], "total": _row_json(planned.bill.total)},
    }


def _row_json(row: BillRow) -> dict[str, Any]:
    names = ("stage", "kind", "nodes", "todo", "flops", "hours", "bytes", "images", "steps", "epochs")
    return {name: getattr(row, name) for name in names}


def run(
    file: Path,
    *,
    sets: Sequence[str],
    cluster: str | None,
    store: str | None,
    as_json: bool,
    every: bool,
    requests: bool = False,
) -> None:
    """The verb; with `requests`, also what would be asked of the scheduler."""
    from stx.verbs import requests as asking

    planned = prepare(file, sets=sets, cluster=cluster, store=store)
    found = list(asking.requests(planned, every=every or as_json)) if requests else []
    if as_json:
        console.out_json(to_json(planned) | ({"requests": [one.dump() for one in found]} if requests else {}))
        return
    console.out(show(planned, every=every, stream=sys.stdout))
    if requests:
        console.out("\n" + asking.show(found, launcher=planned.cluster.launcher))
    sys.stdout.flush()
    console.next_commands(advice.submit(file, sets=sets, cluster=cluster))
