"""`stx report` over 100 runs: seconds and peak memory of a fresh process, both texts and all figures written.

    python tools/bench/report.py [--runs 100] [--milestones 10] [--lines 4000]

Must hold: under 10 s and 1 GiB. The store is made here, of real files: a sweep of guidance and seeds over one phase 1,
each run with three attempts, a line of metrics every 100 steps, and per milestone weights' artifact, samples, scores
and what an inspect stage leaves.
"""

import argparse
import io
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stx import records
from stx.paths import Store
from stx.spec import Artifact, Cost, Graph, Input, Node, StageSpec

LIMIT_S, LIMIT_BYTES = 10.0, 2**30
SEEDS = 2
BATCH = 256
CLASSES = [f"class {n}" for n in range(10)]
PROTOCOL = {"num_samples": 50_000, "solver": "euler", "steps": 25, "guidance": 1.0, "interval": [0.0, 1.0]}
SAMPLES, BLOCKS, TIMES, SIDE = 50, 12, [0.2, 0.4, 0.6, 0.8], 64


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@dataclass
class Maker:
    """Makes the store. Files of one kind have the same content: reading does not know."""

    store: Store
    milestones: list[int]
    lines: int
    nodes: list[Node] = field(default_factory=list)
    rng: Any = field(default_factory=lambda: np.random.default_rng(0))

    def add(self, name: str, kind: str, science: Mapping[str, Any], inputs: Mapping[str, Input], **more: Any) -> Node:
        spec = StageSpec(kind=kind, recipe=1, science=science, inputs=inputs)
        node = Node(name=name, stage=name.split(":")[0], spec=spec, cost=Cost(1e15, 1e9, 1e9), **more)
        self.nodes.append(node)
        return node

    def finish(self, node: Node, files: Mapping[str, bytes], *, images: int | None = None) -> None:
        stage = self.store.stage(node.spec.kind, node.key)
        part = stage.result if images is None else stage.part(node.spec.kind, images)
        part.path.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (part.path / name).parent.mkdir(exist_ok=True)
            (part.path / name).write_bytes(data)
        info = {"seconds": images / 2000, "lineage": [[0, images, 3]]} if images else {}
        digests = {name: records.digest(name) for name in files}
        artifact = Artifact(kind=node.spec.kind, key=node.key, images=images, files=digests, info=info)
        part.artifact.write_bytes(records.dumps(artifact.dump()))

    def attempts(self, node: Node, *, count: int) -> None:
        for number in range(1, count + 1):
            folder = self.store.stage(node.spec.kind, node.key).attempt(number)
            folder.path.mkdir(parents=True)
            folder.intent.write_bytes(records.dumps({"cluster": "slurm", "host": f"node{number}"}))
            layout = {"ranks": 8, "gpus_per_rank": 1, "cpus_per_rank": 12, "zero_stage": 1, "micro_batch": 32}
            folder.attempt.write_bytes(records.dumps({"layout": layout, "code": "c0de" * 16, "threads": 12}))
            folder.started.write_bytes(b"{}")
            end = {"result": "COMPLETED" if number == count else "YIELDED", "info": {"versions": {"torch": "2.15.0"}}}
            folder.outcome(0).write_bytes(records.dumps(end))

    def log(self, node: Node) -> None:
        """The metrics of a run over its attempts."""
        every = self.milestones[-1] // self.lines
        for number in (1, 2, 3):
            begin, end = (number - 1) * self.lines // 3, number * self.lines // 3
            lines = [
                records.dumps(
                    {
                        "images": (line + 1) * every,
                        "step": (line + 1) * every // BATCH,
                        "loss": 0.9,
                        "diffusion": 0.8 + 0.2 / (line + 1),
                        "alignment.guided_teacher": 0.1,
                        "grad_norm": 0.31,
                        "images_per_s": 1843.2,
                        "loader_wait_s": 0.01,
                        "time": 1795241118.1526608,
                    }
                )
                for line in range(begin, end)
            ]
            folder = self.store.stage("train", node.key).attempt(number)
            folder.metrics.write_bytes(b"".join(line + b"\n" for line in lines))

    def run(self, name: str, *, point: Mapping[str, Any], inputs: Mapping[str, Input]) -> Node:
        """A run with all that hangs on it."""
        wants = tuple(self.milestones)
        train = self.add(name, "train", {"name": name, "seed": point.get("seed", 0)}, inputs, wants=wants, point=point)
        run = {"run": Input("train", train.key)}
        sample = self.add(f"samples:{name}", "sample", {"kind": "samples"}, run, wants=wants)
        scored = {"samples": Input("sample", sample.key)}
        scores = self.add(f"scores:{name}", "evaluate", {"kind": "scores"}, scored, wants=wants)
        looks = self.add(f"looks:{name}", "inspect", {"kind": "looks"}, run, wants=wants[-1:])
        for node, count in ((train, 3), (sample, 1), (scores, 1), (looks, 1)):
            self.attempts(node, count=count)
        self.log(train)
        pictures = npy(self.rng.integers(0, 256, (SAMPLES, SIDE, SIDE, 3), dtype=np.uint8))
        labels = npy(np.arange(SAMPLES, dtype=np.int64) % 10)
        for images in wants:
            value = 50 * (images / wants[0]) ** -0.5 + float(self.rng.normal(0, 0.1))
            record = records.dumps({"scores": {"frechet_distance": value}, "protocol": PROTOCOL})
            self.finish(train, {"weights.safetensors": b""}, images=images)
            self.finish(sample, {"samples-00000.npy": pictures, "labels.npy": labels}, images=images)
            self.finish(scores, {"scores.json": record}, images=images)
        self.finish(looks, self._look(), images=wants[-1])
        return train

    def _look(self) -> dict[str, bytes]:
        def random(*shape: int) -> bytes:
            return npy(self.rng.integers(0, 256, shape, dtype=np.uint8))

        info = {"times": TIMES, "blocks": list(range(1, BLOCKS + 1)), "labels": list(range(8)), "class_names": CLASSES}
        guided = {"teacher": "f" * 64, "block": 8, "guidance": 5.0}
        return {
            "inspect.json": records.dumps(info | {"num_images": 8, "guided": guided}),
            "noisy.npy": random(8, len(TIMES), SIDE, SIDE, 3),
            "pca.npy": random(8, len(TIMES), BLOCKS, 16, 16, 3),
            "guided.npy": random(8, len(TIMES), 2, 16, 16, 3),
            "probes.npy": npy(self.rng.random((len(TIMES), BLOCKS), dtype=np.float32)),
        }


def make(root: Path, *, runs: int, milestones: int, lines: int) -> Store:
    """The store."""
    store = Store(root)
    maker = Maker(store, [(number + 1) * 102_400_000 // milestones for number in range(milestones)], lines)
    images = maker.add("images", "images", {}, {})
    maker.finish(images, {"payload/images.json": records.dumps({"class_names": CLASSES})})
    phase1 = maker.run("phase1", point={}, inputs={})
    teacher = maker.add("teacher", "freeze", {}, {"run": Input("train", phase1.key, maker.milestones[-1])})
    maker.finish(teacher, {"payload/x": b""})
    for seed in range(SEEDS):
        maker.run(f"vanilla:seed={seed}", point={"seed": seed}, inputs={})
    for number in range(runs - 1 - SEEDS):
        point = {"alignment.guidance": float(number // SEEDS + 1), "seed": number % SEEDS}
        name = f"phase2:guidance={number // SEEDS + 1},seed={number % SEEDS}"
        maker.run(name, point=point, inputs={"alignment.teacher": Input("freeze", teacher.key)})
    experiment = store.experiment("bench")
    experiment.path.mkdir(parents=True)
    report = {"series": ["vanilla", "phase1", "phase2"]}
    records.write(experiment.graph, Graph("bench", tuple(maker.nodes), report).dump())
    experiment.file.write_text("name: bench\n")
    return store


def main() -> int:
    """Make, measure, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--milestones", type=int, default=10)
    parser.add_argument("--lines", type=int, default=4000, help="lines of metrics of each run")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = make(Path(folder) / "store", runs=asked.runs, milestones=asked.milestones, lines=asked.lines)
        files = [path.stat().st_size for path in store.root.rglob("*") if path.is_file()]
        print(f"made {len(files):,} files, {sum(files) / 1e6:,.0f} MB")
        argv = [sys.executable, "-m", "stx.cli", "report", "bench", "--store", str(store.root)]
        began = time.perf_counter()
        subprocess.run(argv, check=True, capture_output=True)
        seconds = time.perf_counter() - began
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024
        page = store.experiment("bench").report / "report.html"
        print(f"report of {asked.runs} runs: {seconds:.1f} s ({cpu:.1f} s CPU; limit {LIMIT_S:.0f} s)")
        print(f"peak {peak / 2**20:.0f} MiB (limit {LIMIT_BYTES / 2**20:.0f}), page {page.stat().st_size / 1e6:.1f} MB")
    return 0 if seconds < LIMIT_S and peak < LIMIT_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
