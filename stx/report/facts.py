"""What the report knows of an experiment: read by stx/report/collect.py, told by everything else in this package.

A series is a train stage with one setting of its swept options; seeds are its repetitions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stx import npy
from stx.paths import LABELS
from stx.report import history
from stx.report.words import scaled
from stx.spec import Artifact, Node

PROBES, PCA, GUIDED, NOISY = "probes.npy", "pca.npy", "guided.npy", "noisy.npy"
_KINDS: Mapping[str, tuple[type[np.generic], int]] = {
    PROBES: (np.float32, 2),
    PCA: (np.uint8, 6),
    GUIDED: (np.uint8, 6),
    NOISY: (np.uint8, 5),
}


def array_in(folder: Path, name: str) -> Any:
    """One of the arrays of an inspection (stx/worker/inspect.py)."""
    dtype, dims = _KINDS[name]
    return npy.load(folder / name, dtype=dtype, dims=dims, mapped=True)


def labels_in(folder: Path) -> Any:
    """The labels of some samples."""
    return npy.load(folder / LABELS, dtype=np.int64, dims=1)


@dataclass(frozen=True)
class Series:
    """`stage` with `options` (swept, no seeds); `label` is how the report calls it."""

    stage: str
    options: tuple[tuple[str, Any], ...]
    label: str


@dataclass(frozen=True)
class Score:
    """One evaluated milestone of one run as scored by `judge`. `compute` is in FLOP, `hours` in device hours (None:
    not recorded), both of everything the run stands on.
    """

    series: Series
    seed: str
    run: str
    judge: str
    images: int
    compute: float
    values: Mapping[str, float]
    protocol: Mapping[str, Any]
    digest: str
    hours: float | None = None


@dataclass(frozen=True)
class Samples:
    """The generated images of one milestone of one run. Equal `protocol_key`: equal noise and labels, row by row."""

    series: Series
    seed: str
    images: int
    folder: Path
    protocol_key: str


@dataclass(frozen=True)
class Inspection:
    """What an inspect stage saw in one milestone of one run; `info` is its inspect.json (stx/worker/inspect.py)."""

    series: Series
    seed: str
    images: int
    folder: Path
    protocol_key: str
    info: Mapping[str, Any]

    @property
    def label(self) -> str:
        """How a legend calls it."""
        return f"{self.series.label} (seed {self.seed}, {scaled(self.images, '').strip()} images)"

    def probes(self) -> list[list[float]]:
        """Accuracy of the linear probe by time and block."""
        return [[float(value) for value in row] for row in self.array(PROBES)]

    def array(self, name: str) -> Any:
        """One of its arrays."""
        return array_in(self.folder, name)


@dataclass(frozen=True)
class Curve:
    """What the lineage of one run logged, thinned out."""

    series: Series
    seed: str
    points: Sequence[history.Point]


@dataclass(frozen=True)
class StageFacts:
    """One key: what it left, by images-seen count or under None, and what it took. `names` are those of all nodes that
    share the key.
    """

    node: Node
    artifacts: Mapping[int | None, Artifact]
    attempts: Sequence[history.AttemptFacts]
    names: tuple[str, ...] = ()

    @property
    def digests(self) -> dict[int | None, str]:
        """The payload digests."""
        return {images: artifact.digest for images, artifact in self.artifacts.items()}

    @property
    def finished(self) -> bool:
        """Whether all that this experiment wants of it is published."""
        return set(self.node.wants or (None,)) <= set(self.artifacts)

    @property
    def state(self) -> str:
        """done, live, failed or open, as its directory tells."""
        last = self.attempts[-1].result if self.attempts else ""
        return "done" if self.finished else {"LIVE": "live", "FAILED": "failed"}.get(last, "open")

    @property
    def seconds(self) -> float | None:
        """Wall time of all attempts."""
        times = [one.seconds for one in self.attempts if one.seconds is not None]
        return sum(times) if times else None

    def hours(self, *, gpus: bool) -> float:
        """GPU-hours, or core-hours, of all attempts."""
        return sum((one.seconds or 0.0) * (one.gpus if gpus else one.cores) for one in self.attempts) / 3600


@dataclass(frozen=True)
class Origin:
    """Where the results come from: what was submitted, and what computed them. `versions`, `codes` (digest: how many
    attempts), `clusters`, `hosts`, `layouts` are counted over all attempts.
    """

    text: str
    graph: str
    versions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    codes: Mapping[str, int] = field(default_factory=dict)
    clusters: Sequence[str] = ()
    hosts: Sequence[str] = ()
    layouts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """Everything the report tells. `baseline` is the stage that all others are compared with."""

    experiment: str
    y: str
    x: tuple[str, ...]
    baseline: str
    series: Sequence[Series]
    scores: Sequence[Score]
    samples: Sequence[Samples]
    inspections: Sequence[Inspection]
    curves: Sequence[Curve]
    stages: Sequence[StageFacts]
    nodes: Sequence[Node]
    class_names: Sequence[str]
    origin: Origin

    @cached_property
    def on_gpus(self) -> bool:
        """Whether any run was trained on a GPU: then time is told in GPU-hours."""
        return any(one.gpus for stage in self.stages if stage.node.spec.kind == "train" for one in stage.attempts)

    @property
    def hours_unit(self) -> str:
        """What an hour of the devices is called: there is no GPU-hour without a GPU."""
        return "GPU-hours" if self.on_gpus else "core-hours"

    def place(self, series: Series, *, otherwise: int) -> int:
        """The index of a series, which decides its colour; of one without scores, `otherwise`."""
        return list(self.series).index(series) if series in self.series else otherwise
