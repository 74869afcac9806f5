"""Facts for the report, read from graph.json, artifacts, metrics and attempts. No torch, no configuration: what is on
disk is what is told.

A series is a train stage with one setting of its swept options; seeds are its repetitions. The total compute of a
milestone is

    own FLOPs up to these images  +  the same for every train stage upstream, at the images it was consumed at
                                  +  the FLOPs of every teacher, feature cache and program upstream, each key once

Preparation of the data (images, autoencoder, latents, classifier) is the same for every series and is not counted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stx import records
from stx.paths import IMAGES_INFO, SCORES, ExperimentDir, Store
from stx.report import history
from stx.report.words import plain
from stx.spec import Artifact, Graph, Node

PREPARATION = frozenset({"images", "autoencoder", "latents", "classifier"})


@dataclass(frozen=True)
class Series:
    """`stage` with `options` (swept, no seeds) as scored by `judge`; `label` is how the report calls it."""

    stage: str
    options: tuple[tuple[str, Any], ...]
    label: str


@dataclass(frozen=True)
class Score:
    """One evaluated milestone of one run."""

    series: Series
    seed: str
    run: str
    judge: str
    images: int
    compute: float
    values: Mapping[str, float]
    protocol: Mapping[str, Any]
    digest: str


@dataclass(frozen=True)
class Samples:
    """The generated images of one milestone of one run."""

    series: Series
    seed: str
    images: int
    folder: Path
    protocol_key: str


@dataclass(frozen=True)
class Curve:
    """What the lineage of one run logged."""

    series: Series
    seed: str
    points: Sequence[history.Point]


@dataclass(frozen=True)
class StageFacts:
    """One key: what it left, and what it took. `digests` is by images-seen count, or under None."""

    node: Node
    digests: Mapping[int | None, str]
    seconds: float | None
    attempts: Sequence[history.AttemptFacts]

    @property
    def finished(self) -> bool:
        """Whether all that this experiment wants of it is published."""
        return set(self.node.wants or (None,)) <= set(self.digests)


@dataclass(frozen=True)
class Facts:
    """Everything the report tells."""

    experiment: str
    y: str
    x: tuple[str, ...]
    baseline: str
    series: Sequence[Series]
    scores: Sequence[Score]
    samples: Sequence[Samples]
    curves: Sequence[Curve]
    stages: Sequence[StageFacts]
    class_names: Sequence[str]


def collect(store: Store, experiment: ExperimentDir) -> Facts:
    """Read it all."""
    with records.understood(experiment.graph):
        graph = Graph.parse(records.read(experiment.graph))
    asked = graph.report
    nodes = _unique(graph.nodes)
    wanted_stages = tuple(asked.get("series") or dict.fromkeys(n.stage for n in graph.nodes if n.spec.kind == "train"))
    runs = _runs(graph.nodes, stages=wanted_stages)
    scores = [
        score for node in nodes.values() if node.spec.kind == "evaluate" for score in _scores(node, runs, nodes, store)
    ]
    samples = [one for node in nodes.values() if node.spec.kind == "sample" for one in _samples(node, runs, store)]
    order = {stage: index for index, stage in enumerate(wanted_stages)}
    series = sorted({score.series for score in scores}, key=lambda one: (order[one.stage], _sortable(one.options)))
    return Facts(
        experiment=graph.experiment,
        y=str(asked.get("y", "frechet_distance")),
        x=tuple(asked.get("x", ("images_seen", "total_compute"))),
        baseline=wanted_stages[0] if wanted_stages else "",
        series=series,
        scores=sorted(
            scores, key=lambda s: (order[s.series.stage], _sortable(s.series.options), s.seed, s.judge, s.images)
        ),
        samples=samples,
        curves=_curves(runs, store),
        stages=[_stage(node, store) for node in nodes.values()],
        class_names=_class_names(nodes.values(), store),
    )


def _unique(nodes: Iterable[Node]) -> dict[str, Node]:
    """By key, the first of those that share one, in topological order."""
    unique: dict[str, Node] = {}
    for node in nodes:
        unique.setdefault(node.key, node)
    return unique


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


def _upstream_run(node: Node, nodes: Mapping[str, Node]) -> str | None:
    """The key of the run behind an evaluate stage: evaluate -> samples -> run."""
    samples = nodes.get(node.spec.inputs["samples"].key)
    return samples.spec.inputs["run"].key if samples else None


def _scores(node: Node, runs: Mapping[str, Any], nodes: Mapping[str, Node], store: Store) -> list[Score]:
    found = []
    stage = store.stage(node.spec.kind, node.key)
    for run, series, seed in runs.get(_upstream_run(node, nodes) or "", ()):
        for images in node.wants:
            part = stage.part("evaluate", images)
            artifact, record = records.find(part.artifact), records.find(part.path / SCORES)
            if artifact is None or record is None:
                continue
            found.append(
                Score(
                    series=series,
                    seed=seed,
                    run=run.name,
                    judge=_judge(node, run),
                    images=images,
                    compute=total_compute(run, images=images, nodes=nodes),
                    values=record["scores"],
                    protocol=record["protocol"],
                    digest=Artifact.parse(artifact).digest,
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
        for _, series, seed in runs.get(node.spec.inputs["run"].key, ())
        for images in node.wants
        if stage.part("sample", images).artifact.exists()
    ]


def total_compute(node: Node, *, images: int | None, nodes: Mapping[str, Node]) -> float:
    """FLOPs behind `images` of a run, shared ancestors once."""
    seen: dict[str, float] = {}

    def visit(one: Node, count: int | None) -> None:
        if one.spec.kind in PREPARATION:
            return
        amount = one.cost.flops if count is None or one.spec.kind != "train" else one.cost.until(count)
        seen[one.key] = max(amount, seen.get(one.key, 0.0))
        for source in one.spec.inputs.values():
            if source.key in nodes:
                visit(nodes[source.key], source.images)

    visit(node, images)
    return sum(seen.values())


def _curves(runs: Mapping[str, Any], store: Store) -> list[Curve]:
    return [
        Curve(series=series, seed=seed, points=history.curve(store.stage(node.spec.kind, node.key)))
        for members in runs.values()
        for node, series, seed in members
    ]


def _stage(node: Node, store: Store) -> StageFacts:
    stage = store.stage(node.spec.kind, node.key)
    artifacts: dict[int | None, Artifact] = {}
    for images in node.wants or (None,):
        part = stage.result if images is None else stage.part(node.spec.kind, images)
        record = records.find(part.artifact)
        if record is not None:
            artifacts[images] = Artifact.parse(record)
    attempts = history.attempts(stage)
    times = [attempt.seconds for attempt in attempts if attempt.seconds is not None]
    return StageFacts(
        node=node,
        digests={images: artifact.digest for images, artifact in artifacts.items()},
        seconds=sum(times) if times else None,
        attempts=attempts,
    )


def _class_names(nodes: Iterable[Node], store: Store) -> list[str]:
    for node in nodes:
        if node.spec.kind == "images":
            record = records.find(store.stage(node.spec.kind, node.key).payload / IMAGES_INFO) or {}
            return [str(name) for name in record.get("class_names", ())]
    return []
