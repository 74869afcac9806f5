"""What a stage is: its keyed spec, its key, its place in the graph, and what it leaves behind.

    key = sha256 of {kind, recipe, science options, keys of its inputs}

Same key, same directory, same result. A growing kind (train, sample, evaluate, inspect) has one key for its whole
trajectory; what is wanted of it are images-seen counts, which are not in the key; who consumes one of them hashes
(key, images).
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from jobs import typed
from stx import records
from stx.errors import StoreError
from stx.paths import StageDir

GROWING = frozenset({"train", "sample", "evaluate", "inspect"})


@dataclass(frozen=True)
class Input:
    """A stage that another one consumes: the result at `images`, or where that is None all it has or grows to."""

    kind: str
    key: str
    images: int | None = None


@dataclass(frozen=True)
class StageSpec:
    """What is hashed. `inputs` is by option path ("latents", "alignment.teacher")."""

    kind: str
    recipe: int
    science: Mapping[str, Any]
    inputs: Mapping[str, Input] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """sha256 in hex."""
        return records.digest(self.hashed())

    def hashed(self) -> dict[str, Any]:
        """The JSON that is hashed, and published as stage.json."""
        return {
            "kind": self.kind,
            "recipe": self.recipe,
            "science": dict(self.science),
            "inputs": {
                name: {"kind": value.kind, "key": value.key, "images": value.images}
                for name, value in self.inputs.items()
            },
        }

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> "StageSpec":
        """The inverse of `hashed`; ValueError says what is not of its field's type."""
        return typed.build(cls, record)


@dataclass(frozen=True)
class Cost:
    """The bill of one stage: arithmetic, bytes left in the store, and for train stages what one image costs: less from
    image `stop_images` on, where alignment stops.
    """

    flops: float = 0.0
    bytes: float = 0.0
    flops_per_image: float = 0.0
    stop_images: int | None = None
    flops_per_image_after_stop: float = 0.0

    def until(self, images: int) -> float:
        """FLOPs of a train stage from its first image to `images` seen."""
        before = images if self.stop_images is None else min(images, self.stop_images)
        return self.flops_per_image * before + self.flops_per_image_after_stop * (images - before)


@dataclass(frozen=True)
class Node:
    """One stage of a graph, under the name people call it.

    stage     its name in the experiment file; `name` adds the sweep point ("phase2:guidance=5,seed=0")
    wants     images-seen counts, ascending, of a growing kind; () for the others
    where     options out of the key that its job needs (paths, log intervals)
    point     the swept options of this node and of what it descends from, for tables and figures
    priority  the longest chain of work that hangs on it: larger first
    """

    name: str
    stage: str
    spec: StageSpec
    wants: tuple[int, ...] = ()
    where: Mapping[str, Any] = field(default_factory=dict)
    point: Mapping[str, Any] = field(default_factory=dict)
    cost: Cost = Cost()
    priority: float = 0.0

    @property
    def key(self) -> str:
        """The key of its spec."""
        return self.spec.key

    @property
    def grows(self) -> bool:
        """Whether its results are parts."""
        return self.spec.kind in GROWING

    def dump(self) -> dict[str, Any]:
        """Its JSON in graph.json."""
        record = {
            "name": self.name,
            "stage": self.stage,
            "key": self.key,
            "spec": self.spec.hashed(),
            "wants": list(self.wants),
        }
        return record | {
            "where": dict(self.where),
            "point": dict(self.point),
            "cost": asdict(self.cost),
            "priority": self.priority,
        }


@dataclass(frozen=True)
class Graph:
    """A planned experiment: nodes in topological order (inputs before their consumers). Two nodes may share a key."""

    experiment: str
    nodes: tuple[Node, ...]
    report: Mapping[str, Any] = field(default_factory=dict)

    def dump(self) -> dict[str, Any]:
        """Its JSON, graph.json."""
        return {
            "experiment": self.experiment,
            "nodes": [node.dump() for node in self.nodes],
            "report": dict(self.report),
        }

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> "Graph":
        """The inverse of `dump`."""
        graph = typed.build(cls, {**record, "nodes": [_unkeyed(node) for node in record["nodes"]]})
        for node, dumped in zip(graph.nodes, record["nodes"], strict=True):
            if node.key != dumped["key"]:
                raise ValueError(f"the key of {node.name[:80]!r} is not that of its spec")
        return graph


def _unkeyed(node: Mapping[str, Any]) -> dict[str, Any]:
    """What a node's JSON holds beside its key, which follows from the rest."""
    return {name: value for name, value in node.items() if name != "key"}


def unique(nodes: Iterable[Node]) -> dict[str, Node]:
    """By key, in order: the first of the nodes that share one, wanting what any of them wants."""
    found: dict[str, Node] = {}
    for node in nodes:
        first = found.setdefault(node.key, node)
        if not set(node.wants) <= set(first.wants):
            found[node.key] = _wanting(first, tuple(sorted({*first.wants, *node.wants})))
    return found


def _wanting(node: Node, wants: tuple[int, ...]) -> Node:
    """The same with other wants, and the FLOPs of these: of a run until the last, of other kinds for each."""
    train = node.spec.kind == "train"
    flops = node.cost.until(wants[-1]) if train else node.cost.flops * len(wants) / len(node.wants)
    return replace(node, wants=wants, cost=replace(node.cost, flops=flops))


@dataclass(frozen=True)
class Artifact:
    """artifact.json of one finished result.

    files   name -> sha256 of the payload files
    digest  sha256 of `files`: the payload digest that is promised
    info    what is not promised to repeat: seconds, host, attempt, rates, a loss for the table
    """

    kind: str
    key: str
    images: int | None
    files: Mapping[str, str]
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The payload digest."""
        return records.digest(dict(self.files))

    def dump(self) -> dict[str, Any]:
        """Its JSON."""
        return asdict(self) | {"digest": self.digest}

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> "Artifact":
        """The inverse of `dump`."""
        found = typed.build(cls, {name: value for name, value in record.items() if name != "digest"})
        for name in found.files:
            if not _is_inside(name):
                raise ValueError(f"{name[:80]!r} is no name of a payload file")
        return found


def find_artifact(path: Path) -> Artifact | None:
    """The artifact.json at `path`, None if there is none; StoreError says what is wrong with it."""
    record = records.find(path, limit=records.ARTIFACT_BYTES)
    if record is None:
        return None
    with records.understood(path):
        return Artifact.parse(record)


def read_artifact(path: Path) -> Artifact:
    """The same, where there must be one."""
    found = find_artifact(path)
    if found is None:
        raise StoreError("No such file or directory", where=str(path))
    return found


def _is_inside(name: str) -> bool:
    """Whether a file of that name lies below the folder that it is looked for in."""
    return "\0" not in name and not {"", ".", ".."} & set(name.split("/"))


def wanted(stage: StageDir) -> set[int]:
    """The union of the images-seen counts that live experiments want of a growing stage; reread at every checkpoint."""
    union: set[int] = set()
    for mark in sorted(stage.wanted_by.glob("*.json")):
        record = records.find(mark)
        if record is not None:
            with records.understood(mark):
                union.update(typed.matching(tuple[int, ...], record["images"]))
    return union
