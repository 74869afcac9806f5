"""Seconds and peak memory of planning a sweep of N points, in a fresh process: python tools/bench/plan.py

Two experiments: the sweep alone, and the sweep with samples and scores of every point (3 N stages). Everything that
`stx plan` does is counted but the printing: reading the file, expanding, surveying an empty store, verbs, the bill.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUN = """
    {kind: train, latents: latents, model: SiT-Ti/2, global_batch: 64, precision: fp32, steps: 500, milestones: [250]"""
BASE = """
name: wide
stages:
  images: {kind: images, source: mnist5k, resolution: 32}
  vae: {kind: autoencoder, images: images}
  latents: {kind: latents, images: images, autoencoder: vae}
  judge: {kind: classifier, images: images}
  phase1:@, alignment: {method: velocity_head, head_block: 2}}
  teacher: {kind: freeze, run: phase1}
  features: {kind: features, teacher: teacher, latents: latents, teacher_block: 3}
  phase2:@, alignment: {method: guided_teacher, teacher: teacher, features: features, student_block: 2,
    teacher_block: 3, guidance: 5}, sweep: {alignment.guidance: GUIDANCE, seed: SEEDS}}
""".replace("@", RUN)
SCORED = """
  samples: {kind: sample, runs: [phase2], num_samples: 500}
  scores: {kind: evaluate, samples: samples, against: images, extractor: {classifier: judge},
    metrics: [frechet_distance]}
"""


def experiment(points: int, *, scored: bool) -> str:
    """An experiment file with a sweep of that many points."""
    guidance, seeds = list(range(1, 1 + max(1, points // 100))), list(range(min(points, 100)))
    return (BASE + SCORED * scored).replace("GUIDANCE", str(guidance)).replace("SEEDS", str(seeds))


def plan_once(file: Path, store: Path) -> None:
    """What one process is measured on; prints its numbers."""
    began = time.perf_counter()
    from stx import plan
    from stx.config.cluster import load_cluster
    from stx.config.load import load_experiment
    from stx.paths import Store

    cluster = load_cluster("local")
    graph = plan.expand(load_experiment(file), cluster)
    seen = plan.survey(graph, Store(store))
    lines = plan.lines(graph, seen)
    plan.bill(graph, lines, cluster, seen=seen)
    seconds = time.perf_counter() - began
    print(len(graph.nodes), seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def numbers(command: list[str]) -> list[float]:
    """What a process printed."""
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [float(word) for word in printed.split()]


def main() -> None:
    """Print one line an experiment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--once", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        plan_once(*arguments.once)
        return
    for scored in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "wide.yaml")
            file.write_text(experiment(arguments.points, scored=scored))
            command = [sys.executable, __file__, "--once", str(file), str(Path(folder, "store"))]
            rows = [numbers(command) for _ in range(arguments.repeats)]
        stages, seconds, megabytes = (statistics.median(column) for column in zip(*rows, strict=True))
        what = "with samples and scores" if scored else "the sweep alone"
        print(f"{what}: {stages:.0f} stages, {seconds:.2f} s, {megabytes:.0f} MB (median of {arguments.repeats})")


if __name__ == "__main__":
    main()
