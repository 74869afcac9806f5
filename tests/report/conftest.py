"""A store as a finished (or half-finished) quickstart leaves it, made through stx.records and stx.paths: records,
digests, samples, metrics.
"""

import io
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stx import records
from stx.paths import ExperimentDir, PartDir, Store
from stx.report.collect import collect
from stx.report.draw import Drawn, draw
from stx.report.facts import Facts
from stx.spec import Artifact, Cost, Graph, Input, Node, StageSpec

MILESTONES = (16_000, 32_000)
# Mean distance at each milestone; the seed moves it a little, so ranges do not touch where the effect is large.
SCORES = {
    "vanilla": (2.2, 1.36),
    "phase1": (2.3, 1.405),
    "phase2": (1.7, 0.99),
    "phase2 g1": (2.1, 1.288),
    "phase2 g30": (2.9, 1.47),
}
PROTOCOL = {
    "num_samples": 500,
    "num_real": 4500,
    "split": "train",
    "against": "1ba9e5f1e4aa",
    "samples": "differs from run to run",
    "extractor": {"classifier": "c1a551f1e4aa", "feature_width": 64, "held_out_accuracy": 0.982},
    "batch": 50,
    "seed": 0,
    "labels": "balanced",
    "weights": "ema",
    "ema_decay": 0.98,
    "sample_batch": 50,
    "solver": "euler",
    "steps": 25,
    "guidance": 1.0,
    "interval": [0.0, 1.0],
}


@dataclass
class World:
    """A store under construction."""

    store: Store
    nodes: list[Node] = field(default_factory=list)
    name: str = "quickstart"

    @property
    def experiment(self) -> ExperimentDir:
        return self.store.experiment(self.name)

    def add(
        self, name: str, kind: str, *, stage: str = "", inputs: dict[str, Input] | None = None, **more: Any
    ) -> Node:
        science = {"seed": 0, "name": name} | more.pop("science", {})
        spec = StageSpec(kind=kind, recipe=1, science=science, inputs=inputs or {})
        node = Node(name=name, stage=stage or name.split(":")[0], spec=spec, **more)
        self.nodes.append(node)
        return node

    def finish(
        self, node: Node, *, images: int | None = None, files: dict[str, bytes], info: dict[str, Any] | None = None
    ) -> None:
        stage = self.store.stage(node.spec.kind, node.key)
        part: PartDir = stage.result if images is None else stage.part(node.spec.kind, images)
        part.path.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (part.path / name).parent.mkdir(parents=True, exist_ok=True)
            (part.path / name).write_bytes(data)
        artifact = Artifact(
            kind=node.spec.kind,
            key=node.key,
            images=images,
            files={n: records.digest(n) for n in files},
            info=info or {},
        )
        records.publish(part.artifact, artifact.dump())

    def attempt(
        self,
        node: Node,
        number: int = 1,
        *,
        result: str = "COMPLETED",
        lines: Iterable[tuple[int, float]] = (),
        **more: Any,
    ) -> None:
        """One attempt of `seconds`, with an outcome (for cause LOST a verdict) and metrics lines (images, loss)."""
        folder = self.store.stage(node.spec.kind, node.key).attempt(number)
        folder.path.mkdir(parents=True)
        records.publish(folder.intent, {"tag": f"t-{number}", "cluster": "local", "host": "vm"})
        layout = {"ranks": more.get("ranks", 1)} | more.get("layout", {})
        records.publish(folder.attempt, {"number": number, "layout": layout, "threads": 1, "code": "c0de" * 16})
        records.publish(folder.started, {"job_id": "1"})
        lost = more.get("cause") == "LOST"
        end = folder.verdict if lost else folder.outcome(0)
        outcome = {"rank": 0, "result": result, "cause": more.get("cause"), "message": more.get("message", "")}
        versions = {"python": "3.11.2", "torch": "2.15.0", "host": "vm"}
        records.publish(end, outcome | {"info": {"versions": versions} | more.get("info", {})})
        for images, loss in lines:
            records.append(
                folder.metrics,
                {
                    "images": images,
                    "step": images // 64,
                    "diffusion": loss,
                    "loss": loss,
                    "grad_norm": 0.5,
                    "time": 1.0,
                },
            )
        os.utime(folder.started, (1000.0, 1000.0))
        os.utime(end, (1000.0 + more.get("seconds", 30.0),) * 2)

    def save(self, **report: Any) -> None:
        self.experiment.path.mkdir(parents=True, exist_ok=True)
        graph = Graph(experiment=self.name, nodes=tuple(self.nodes), report=report)
        records.write(self.experiment.graph, graph.dump())
        self.experiment.file.write_text(f"name: {self.name}\nstages: {{}}  # a < b && 'c'\n")


def npy(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def add_run(
    world: World, name: str, *, method: str, milestones: tuple[int, ...] = MILESTONES, scored: bool = True, **more: Any
) -> Node:
    """A train stage, its samples and its scores, all finished; points as the plan writes them."""
    point, layout = more.pop("point", {}), more.pop("layout", {})
    inherited = {f"{name.split(':')[0]}.{option}": value for option, value in point.items()}
    seed = point.get("seed", 0)
    run = world.add(
        name,
        "train",
        wants=milestones,
        point=point,
        science={"seed": seed},
        cost=Cost(1e9 * milestones[-1], 1e6, 1e9),
        **more,
    )
    sample = world.add(
        f"samples:{name}",
        "sample",
        inputs={"run": Input("train", run.key)},
        wants=milestones,
        point=inherited,
        science={"name": "samples"},
    )
    inputs = {"samples": Input("sample", sample.key)}
    judge = world.add(
        f"scores:{name}", "evaluate", inputs=inputs, wants=milestones, point=inherited, science={"name": "scores"}
    )
    world.attempt(
        run, layout=layout, lines=[(images, 1.0 - images / 1e5) for images in range(3200, milestones[-1] + 1, 3200)]
    )
    labels = np.arange(20, dtype=np.int64) % 10
    shade = np.linspace(0, 255, 20, dtype=np.uint8)
    pictures = np.broadcast_to(shade[:, None, None, None], (20, 32, 32, 1))
    for index, images in enumerate(milestones):
        info = {"seconds": 30.0 * images / milestones[-1], "lineage": [[0, images, 1]]}
        world.finish(run, images=images, files={"weights.safetensors": b""}, info=info)
        world.finish(sample, images=images, files={"samples-00000.npy": npy(pictures), "labels.npy": npy(labels)})
        if scored:
            mean = SCORES[method][min(index, 1)] * (0.5 if index > 1 else 1)
            values = {"frechet_distance": mean + 0.01 * seed, "label_accuracy": 1 - mean / 6}
            world.finish(
                judge, images=images, files={"scores.json": records.dumps({"scores": values, "protocol": PROTOCOL})}
            )
    return run


TIMES, BLOCKS, CLASSES = [0.2, 0.8], [1, 2, 3], ["ant", "bee", "cat"]


def add_inspection(world: World, run: Node, *, guided: bool, images: int = MILESTONES[-1]) -> None:
    """An inspect stage of a run as stx/worker/inspect.py leaves it: 4 images, 2 times, 3 blocks, 4 x 4 tokens."""
    node = world.add(
        f"looks:{run.name}",
        "inspect",
        stage="looks",
        inputs={"run": Input("train", run.key)},
        wants=(images,),
        science={"name": "looks"},
    )
    teacher = {"teacher": "f" * 64, "block": 3, "guidance": 5.0}
    info = {"times": TIMES, "blocks": BLOCKS, "labels": [0, 1, 2, 0], "class_names": CLASSES, "num_images": 4}
    rng = np.random.default_rng(1)
    files = {
        "inspect.json": records.dumps(info | {"guided": teacher if guided else None}),
        "noisy.npy": npy(rng.integers(0, 256, (4, 2, 16, 16, 3), dtype=np.uint8)),
        "pca.npy": npy(rng.integers(0, 256, (4, 2, 3, 4, 4, 3), dtype=np.uint8)),
        "probes.npy": npy(np.array([[0.4, 0.6, 0.7], [0.3, 0.35, 0.4]], dtype=np.float32)),
    }
    if guided:
        files["guided.npy"] = npy(rng.integers(0, 256, (4, 2, 2, 4, 4, 3), dtype=np.uint8))
    world.finish(node, images=images, files=files)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """An empty store."""
    return World(Store(tmp_path / "store"))


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The quickstart's graph, finished: two vanilla seeds, phase 1, its teacher and cache, phase 2 over guidance. One
    for all tests: to be read only.
    """
    world = World(Store(tmp_path_factory.mktemp("quickstart") / "store"))
    images = world.add("images", "images")
    world.finish(
        images, files={"payload/images.json": records.dumps({"class_names": [f"digit {n}" for n in range(10)]})}
    )
    world.attempt(images, seconds=4.0)
    vae = world.add("vae", "autoencoder", inputs={"images": Input("images", images.key)}, cost=Cost(5e12))
    world.finish(vae, files={"payload/quality.json": b"{}"})
    for seed in (0, 1):
        add_run(
            world,
            f"vanilla:seed={seed}",
            method="vanilla",
            point={"seed": seed},
            inputs={"latents": Input("autoencoder", vae.key)},
        )
    phase1 = add_run(world, "phase1", method="phase1")
    teacher = world.add("teacher", "freeze", inputs={"run": Input("train", phase1.key, 32_000)})
    features = world.add("features", "features", inputs={"teacher": Input("freeze", teacher.key)}, cost=Cost(2e12, 1e8))
    for node in (teacher, features):
        world.finish(node, files={"payload/x": b""})
        world.attempt(node, seconds=40.0)
    inputs = {"alignment.teacher": Input("freeze", teacher.key), "alignment.features": Input("features", features.key)}
    for guidance, seed, method in ((5.0, 0, "phase2"), (5.0, 1, "phase2"), (1, 0, "phase2 g1"), (30, 0, "phase2 g30")):
        point = {"alignment.guidance": guidance, "seed": seed}
        add_run(world, f"phase2:guidance={guidance:g},seed={seed}", method=method, point=point, inputs=inputs)
    world.save(
        y="frechet_distance", x=["images_seen", "total_compute", "gpu_hours"], series=["vanilla", "phase1", "phase2"]
    )
    return world


@pytest.fixture(scope="session")
def facts(quickstart: World) -> Facts:
    """All that is told of the quickstart."""
    return collect(quickstart.store, quickstart.experiment)


@pytest.fixture(scope="session")
def drawn(facts: Facts) -> Drawn:
    """All that is drawn of it."""
    return draw(facts)


@pytest.fixture
def add_scored_run() -> Callable[..., Node]:
    """Adds one more run with samples and scores."""
    return add_run


@pytest.fixture
def inspected(world: World) -> World:
    """Two scored runs, inspected; one has a guided teacher."""
    for name, guided in (("vanilla", False), ("phase2", True)):
        add_inspection(world, add_run(world, name, method=name), guided=guided)
    world.save()
    return world
