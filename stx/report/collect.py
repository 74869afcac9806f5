"""Facts for the report, read from graph.json, artifacts, metrics and attempts. No torch, no configuration: what is on
disk is what is told.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jobs import typed
from stx import records
from stx.paths import IMAGES_INFO, ExperimentDir, StageDir, Store
from stx.report import history, read
from stx.report.compute import total_compute, total_hours
from stx.report.facts import (
    Curve,
    Facts,
    Inspection,
    Origin,
    Samples,
    Score,
    Series,
    StageFacts,
)
from stx.report.words import plain
from stx.spec import Artifact, Graph, Node, find_artifact, unique

CURVE_POINTS = 400


def collect(store: Store, experiment: ExperimentDir) -> Facts:
    """Read it all."""
    with records.understood(experiment.graph):
        graph = Graph.parse(records.read(experiment.graph, limit=records.GRAPH_BYTES))
    asked = graph.report
    nodes = unique(graph.nodes)
    wanted_stages = tuple(asked.get("series") or dict.fromkeys(n.stage for n in graph.nodes if n.spec.kind == "train"))
    runs = _runs(graph.nodes, stages=wanted_stages)
    stages = _stages(graph.nodes, store)
    scores = [
        score
        for node in nodes.values()
        if node.spec.kind == "evaluate"
        for score in _scores(node, runs, nodes, stages, store)
    ]
    order = {stage: index for index, stage in enumerate(wanted_stages)}
    series = sorted({score.series for score in scores}, key=lambda one: (order[one.stage], _sortable(one.options)))
    return Facts(
        experiment=graph.experiment,
        y=str(asked.get("y", "frechet_distance")),
        x=tuple(asked.get("x", ("images_seen", "total_compute", "gpu_hours"))),
        baseline=wanted_stages[0] if wanted_stages else "",
        series=series,
        scores=sorted(
            scores, key=lambda s: (order[s.series.stage], _sortable(s.series.options), s.seed, s.judge, s.images)
        ),
        samples=[one for node in nodes.values() if node.spec.kind == "sample" for one in _samples(node, runs, store)],
        inspections=[
            one for node in nodes.values() if node.spec.kind == "inspect" for one in _inspections(node, runs, store)
        ],
        curves=_curves(runs, store),
        stages=list(stages.values()),
        nodes=graph.nodes,
        class_names=_class_names(nodes.values(), store),
        origin=_origin(experiment, graph, stages.values()),
    )


def is_seed(option: str) -> bool:
    """Seeds repeat a series; every other swept option makes another one."""
    return option.rsplit(".", 1)[-1] == "seed"


def short(option: str) -> str:
    """phase2.alignment.guidance is guidance in labels."""
    return option.rsplit(".", 1)[-1]


def _sortable(options: Sequence[tuple[str, Any]]) -> list[tuple[str, bool, Any]]:
    return [
        (name, isinstance(value, str), value if isinstance(value, int | float | str) else plain(value))
        for name, value in options
    ]


def _runs(nodes: Iterable[Node], *, stages: Sequence[str]) -> dict[str, list[tuple[Node, Series, str]]]:
    """By key of a train stage: who it is in the report. Two stages that share a key are both told."""
    trains = [node for node in nodes if node.spec.kind == "train" and node.stage in stages]
    values: dict[tuple[str, str], set[str]] = {}
    for node in trains:
        for name, value in node.point.items():
            values.setdefault((node.stage, name), set()).add(plain(value))
    runs: dict[str, list[tuple[Node, Series, str]]] = {}
    for node in trains:
        varied = [name for name in node.point if not is_seed(name) and len(values[node.stage, name]) > 1]
        runs.setdefault(node.key, []).append((node, _series(node, varied=varied), _seed(node)))
    return runs


def _series(node: Node, *, varied: Sequence[str]) -> Series:
    options = tuple((name, _hashable(node.point[name])) for name in sorted(varied))
    words = [f"{short(name)}={plain(value)}" for name, value in options]
    return Series(stage=node.stage, options=options, label=" ".join([node.stage, *words]))


def _hashable(value: Any) -> Any:
    return value if isinstance(value, int | float | str | None) else plain(value)


def _seed(node: Node) -> str:
    """The own seed, and those of the swept stages it descends from."""
    own = plain(node.spec.science.get("seed", 0))
    others = [
        f"{name.removesuffix('.seed')} {plain(value)}"
        for name, value in sorted(node.point.items())
        if is_seed(name) and name != "seed"
    ]
    return ", ".join([own, *others])


def wanted_of(node: Node, run: Node) -> list[int]:
    """What is wanted of a stage behind a run, as far as that run goes: another one of the same key may go further."""
    return [images for images in node.wants if images in run.wants]


def _upstream_run(node: Node, nodes: Mapping[str, Node]) -> str | None:
    """The key of the run behind an evaluate stage: evaluate -> samples -> run."""
    samples = nodes.get(node.spec.inputs["samples"].key)
    return samples.spec.inputs["run"].key if samples else None


def _scores(
    node: Node, runs: Mapping[str, Any], nodes: Mapping[str, Node], stages: Mapping[str, StageFacts], store: Store
) -> list[Score]:
    found = []
    gpus = any(one.gpus for stage in stages.values() if stage.node.spec.kind == "train" for one in stage.attempts)
    stage = store.stage(node.spec.kind, node.key)
    for run, series, seed in runs.get(_upstream_run(node, nodes) or "", ()):
        for images in wanted_of(node, run):
            part = stage.part("evaluate", images)
            said = read.scored(part)
            if said is None:
                continue
            artifact, values, protocol = said
            found.append(
                Score(
                    series=series,
                    seed=seed,
                    run=run.name,
                    judge=_judge(node, run),
                    images=images,
                    compute=total_compute(run, images=images, nodes=nodes),
                    hours=total_hours(run, images=images, nodes=nodes, stages=stages, gpus=gpus),
                    values=values,
                    protocol=protocol,
                    digest=artifact.digest,
                )
            )
    return found


def _judge(node: Node, run: Node) -> str:
    """The evaluate stage, with the options swept between the run and the score (guidance of the sampler, number of
    samples).
    """
    of_run = {*run.point, *(f"{run.stage}.{name}" for name in run.point)}
    extra = [f"{short(name)}={plain(value)}" for name, value in sorted(node.point.items()) if name not in of_run]
    return " ".join([node.stage, *extra])


def _samples(node: Node, runs: Mapping[str, Any], store: Store) -> list[Samples]:
    stage = store.stage(node.spec.kind, node.key)
    # Everything but the run decides the noise, so equal values here mean the same noise row by row.
    protocol = records.digest({"science": dict(node.spec.science)})
    return [
        Samples(
            series=series, seed=seed, images=images, folder=stage.part("sample", images).path, protocol_key=protocol
        )
        for run, series, seed in runs.get(node.spec.inputs["run"].key, ())
        for images in wanted_of(node, run)
        if stage.part("sample", images).artifact.exists() and read.has_samples(stage.part("sample", images).path)
    ]


def _inspections(node: Node, runs: Mapping[str, Any], store: Store) -> list[Inspection]:
    stage = store.stage(node.spec.kind, node.key)
    protocol = records.digest({"science": dict(node.spec.science)})
    found = []
    for run, series, seed in runs.get(node.spec.inputs["run"].key, ()):
        for images in wanted_of(node, run):
            part = stage.part(node.spec.kind, images)
            info = read.inspected(part) if part.artifact.exists() else None
            if info is not None:
                found.append(Inspection(series, seed, images, part.path, protocol, info))
    return found


def _curves(runs: Mapping[str, Any], store: Store) -> list[Curve]:
    return [
        Curve(series=series, seed=seed, points=points)
        for key, members in runs.items()
        for points in [history.curve(store.stage("train", key), limit=CURVE_POINTS)]
        for _, series, seed in members
    ]


def _stages(nodes: Iterable[Node], store: Store) -> dict[str, StageFacts]:
    """By key, in topological order."""
    names: dict[str, list[str]] = {}
    for node in nodes:
        names.setdefault(node.key, []).append(node.name)
    return {
        key: StageFacts(
            node=node,
            artifacts=_artifacts(node, store.stage(node.spec.kind, key)),
            attempts=history.attempts(store.stage(node.spec.kind, key)),
            names=tuple(names[key]),
        )
        for key, node in unique(nodes).items()
    }


def _artifacts(node: Node, stage: StageDir) -> dict[int | None, Artifact]:
    found: dict[int | None, Artifact] = {}
    for images in node.wants or (None,):
        part = stage.result if images is None else stage.part(node.spec.kind, images)
        with read.left_out():
            artifact = find_artifact(part.artifact)
            if artifact is not None:
                found[images] = artifact
    return found


def _origin(experiment: ExperimentDir, graph: Graph, stages: Iterable[StageFacts]) -> Origin:
    attempts = [one for stage in stages for one in stage.attempts]
    versions: dict[str, set[str]] = {}
    for one in attempts:
        for name, version in one.versions.items():
            versions.setdefault(name, set()).add(version)
    return Origin(
        text=records.text(experiment.file),
        graph=records.digest(sorted({node.key for node in graph.nodes})),
        versions={name: sorted(found) for name, found in sorted(versions.items())},
        codes=dict(Counter(one.code for one in attempts if one.code).most_common()),
        clusters=sorted({one.cluster for one in attempts if one.cluster}),
        hosts=sorted({one.host for one in attempts if one.host}),
        layouts=dict(Counter(one.layout for one in attempts if one.layout).most_common()),
    )


def _class_names(nodes: Iterable[Node], store: Store) -> list[str]:
    for node in nodes:
        if node.spec.kind == "images":
            path = store.stage(node.spec.kind, node.key).payload / IMAGES_INFO
            with read.left_out(), records.understood(path):
                return list(typed.matching(tuple[str, ...], (records.find(path) or {}).get("class_names", [])))
    return []
