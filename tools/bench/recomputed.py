"""What a kill costs: images computed again, against half of what is computed between two saves.

    python tools/bench/recomputed.py [--kills 20] [--every-s 3] [--seed 1] [--store DIR]

A micro run (width 32, batch 16) is submitted, and its worker killed by SIGKILL again and again, at moments that are
uniform over three intervals after its first step; the coordinator starts the next attempt at once. Every step writes a
line of metrics, so what was computed and lost is exact: the last line of the killed attempt less where the next one
began. Between two saves means: the difference of the images of successive checkpoints that time asked for, as the logs
tell them.

A kill that falls uniformly into an interval loses half of it on average. Beside images it costs the start of a worker,
which is printed, too.
"""

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import psutil

EXPERIMENT = """
name: recomputed
stages:
  images: {kind: images, source: mnist5k, resolution: 32, held_out: 500}
  vae: {kind: autoencoder, images: images, steps: 2, batch: 8}
  latents: {kind: latents, images: images, autoencoder: vae}
  run:
    kind: train
    latents: latents
    model: SiT-Mu/2
    global_batch: 16
    lr: 1.0e-3
    ema_decay: 0.9
    precision: fp32
    steps: 1000000
    milestones: [1000000]
    log_every: 1
    alignment: {method: none}
"""
CLUSTER = """
launcher: local
poll_s: 0.1
backoff_s: [0]
retries: {lost: 100000}
checkpoint: {every_s: EVERY_S, keep: 2, max_stall: 1}
stages: {default: {mem_gb: 2, time: 24h, gpus_per_rank: 0}}
"""
SAVED = re.compile(r"saved checkpoint images=(\d+)")
BATCH = 16  # of the experiment
PATIENCE_S = 600.0


class Attempts:
    """The attempts of the one train stage of a store."""

    def __init__(self, store: Path) -> None:
        self.store = store

    def folders(self) -> list[Path]:
        return sorted(path for path in self.store.glob("stages/train-*/attempts/*") if path.is_dir())

    def images(self, folder: Path) -> list[int]:
        """Images seen after every step, as far as they were written."""
        path = folder / "metrics.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line)["images"] for line in lines if line.endswith(b"\n")]

    def saves(self, folder: Path) -> list[int]:
        """Images at the saves of an attempt, in their order."""
        return [int(images) for images in SAVED.findall((folder / "rank-0.log").read_text())]

    def training(self, after: int) -> Path | None:
        """The attempt after `after` others, if it has made a step."""
        folders = self.folders()[after:]
        return folders[0] if folders and self.images(folders[0]) else None


def worker_of(folder: Path) -> psutil.Process:
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "stx.worker" in command and str(folder) in command:
            return process
    raise SystemExit(f"no worker runs {folder}")


def wait_for(submit: subprocess.Popen[bytes], attempts: Attempts, after: int) -> Path:
    """Until the attempt after `after` others has made a step."""
    deadline = time.monotonic() + PATIENCE_S
    while (folder := attempts.training(after)) is None:
        if submit.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"no attempt {after + 1} within {PATIENCE_S:.0f} s; the submit: {submit.poll()}")
        time.sleep(0.02)
    return folder


def kill_again_and_again(store: Path, *, kills: int, every_s: float, seed: int) -> tuple[list[float], list[Path]]:
    """The seconds from each kill to the next first step, and the folders of all attempts."""
    chooser, attempts, starts = random.Random(seed), Attempts(store), []
    experiment, cluster = store.parent / "experiment.yaml", store.parent / "cluster.yaml"
    experiment.write_text(EXPERIMENT)
    cluster.write_text(CLUSTER.replace("EVERY_S", str(every_s)))
    command = [sys.executable, "-m", "stx.cli", "submit", str(experiment), "--cluster", str(cluster)]
    env = {**os.environ, "STX_STORE": str(store)}
    submit = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for number in range(kills):
            folder = wait_for(submit, attempts, number)
            time.sleep(chooser.uniform(0, 3 * every_s))
            worker_of(folder).kill()
            killed = time.monotonic()
            wait_for(submit, attempts, number + 1)
            starts.append(time.monotonic() - killed)
    finally:
        submit.send_signal(signal.SIGINT)  # the last attempt saves and leaves
        submit.wait(PATIENCE_S)
    return starts, attempts.folders()


def recomputed(attempts: Attempts, folders: Sequence[Path]) -> tuple[list[int], list[int]]:
    """Images computed again after each kill, and images between successive saves of one attempt."""
    steps = [attempts.images(folder) for folder in folders]
    lost = [before[-1] - (after[0] - BATCH) for before, after in pairwise(steps)]
    saves = [attempts.saves(folder) for folder in folders[:-1]]
    between = [
        two - one for images, made in zip(steps, saves, strict=False) for one, two in pairwise([images[0], *made])
    ]
    return lost, between


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--every-s", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", type=Path, default=None, help="a new folder; a temporary one by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stx-bench-") as folder:
        store = arguments.store or Path(folder) / "store"
        starts, folders = kill_again_and_again(
            store, kills=arguments.kills, every_s=arguments.every_s, seed=arguments.seed
        )
        lost, between = recomputed(Attempts(store), folders)
    half = statistics.mean(between) / 2
    mean, error = statistics.mean(lost), statistics.stdev(lost) / len(lost) ** 0.5
    print(f"{len(lost)} kills, a save every {arguments.every_s:g} s, seed {arguments.seed}")
    print(f"images computed again per kill: mean {mean:,.0f} (standard error {error:,.0f}), most {max(lost):,}")
    print(f"half of the images between two saves: {half:,.0f} (mean of {len(between)}); ratio {mean / half:.2f}")
    print(f"from a kill to the next first step: median {statistics.median(starts):.1f} s")


if __name__ == "__main__":
    main()
