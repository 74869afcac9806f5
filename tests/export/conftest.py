"""An experiment with curves and scores, as coordinators and workers leave it."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from stx import records
from stx.paths import Store
from stx.spec import Artifact, Graph, Input, Node, StageSpec


class Scene:
    """A run that was interrupted once, its samples, and their scores at two milestones."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.run = Node("run:seed=0", "run", StageSpec("train", 1, {"seed": 0, "alignment": {"method": "none"}}))
        samples = StageSpec("sample", 1, {}, {"run": Input("train", self.run.key)})
        self.samples = Node("samples", "samples", samples, wants=(64, 128))
        scores = StageSpec("evaluate", 1, {}, {"samples": Input("sample", self.samples.key)})
        self.scores = Node("scores", "scores", scores, wants=(64, 128))
        twin = Node("twin", "twin", self.run.spec)
        self.graph = Graph("e", (self.run, twin, self.samples, self.scores))
        self.store.experiment("e").path.mkdir(parents=True)
        records.write(self.store.experiment("e").graph, self.graph.dump())

    def log(self, attempt: int, images: Iterable[int], *, loss: float) -> None:
        """Lines of metrics.jsonl of one attempt."""
        folder = self.store.stage("train", self.run.key).attempt(attempt)
        folder.path.mkdir(parents=True, exist_ok=True)
        records.publish(folder.intent, {"tag": f"t-{attempt}"})
        for count in images:
            line = {"images": count, "step": count // 16, "loss": loss, "grad_norm": None, "time": 1000.0 + count}
            records.append(folder.metrics, line)

    def score(self, images: int, *, distance: float) -> None:
        """A finished part of the scores."""
        part = self.store.stage("evaluate", self.scores.key).part("evaluate", images)
        part.path.mkdir(parents=True)
        records.publish(part.path / "scores.json", {"scores": {"frechet_distance": distance}, "protocol": {}})
        records.publish(part.artifact, Artifact("evaluate", self.scores.key, images, {}).dump())


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Attempt 1 logged until 64 images and saved at 32; attempt 2 went on from there."""
    one = Scene(tmp_path / "store")
    one.log(1, (16, 32, 48, 64), loss=1.0)
    one.log(2, (48, 64, 80), loss=0.5)
    one.score(64, distance=2.0)
    return one
