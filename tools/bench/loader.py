"""Loader: images/s of one process, indexed shards against one .npy file per sample. Moments only: at least 8x.

    python tools/bench/loader.py [--samples 4096] [--batch 256] [--repeats 9] [--folder DIR]

Moments of 4x32x32 latents (mean and standard deviation, 8x32x32), in a shuffled order, from the page cache, in float32
on both sides; the float16 option of the latents stage is shown too. The lines with noise make whole batches: order,
labels, t, dropout, window, posterior noise, scaled latents, noise. Contenders run in turn; medians.
"""

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"

import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from stx import records
from stx.data import noise, shards
from stx.data.latents import DTYPES, RECORD, SPLIT, Latents, LatentsInfo, publish_latents
from stx.data.loader import TrainLoader
from stx.data.noise import Purpose
from stx.data.order import Order

SHAPE = (4, 32, 32)
SHARD = 512
BASE = "one .npy file per sample"
MUST = 8.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--folder", type=Path, default=None, help="where to write; default: a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        measure(Path(folder), samples=arguments.samples, batch=arguments.batch, repeats=arguments.repeats)


def measure(folder: Path, *, samples: int, batch: int, repeats: int) -> None:
    found = {dtype: write_latents(folder / dtype, samples=samples, dtype=dtype) for dtype in DTYPES}
    write_files(folder, found["fp32"])
    order = Order(found["fp32"].sizes, seed=0)
    starts = range(0, samples - batch + 1, batch)
    contenders: dict[str, Callable[[], object]] = {
        BASE: lambda: drain(read_files(folder, order.indices(range(start, start + batch))) for start in starts)
    }
    for dtype, latents in found.items():
        loader = TrainLoader(latents, seed=0, global_batch=batch, micro_batch=batch, window=(0.4, 0.7))
        contenders[f"shards, moments, {dtype}"] = lambda latents=latents: drain(
            latents.moments(order.indices(range(start, start + batch))) for start in starts
        )
        contenders[f"batches with noise, {dtype}"] = lambda loader=loader: drain(loader.step(start) for start in starts)
    seconds = measure_in_turn(contenders, repeats=repeats)
    print(f"{samples} samples, batches of {batch}, shards of {SHARD}\n{'':<28} {'images/s':>10} {'ratio':>7}")
    for name, values in seconds.items():
        rate = len(starts) * batch / statistics.median(values)
        print(f"{name:<28} {rate:>10.0f} {ratio(seconds[BASE], values):>6.1f}x")
    found_ratio = ratio(seconds[BASE], seconds["shards, moments, fp32"])
    verdict = "ok" if found_ratio >= MUST else "MISSED"
    print(f"moments only, fp32: {found_ratio:.1f}x, must be at least {MUST:.0f}x: {verdict}")


def write_latents(folder: Path, *, samples: int, dtype: str) -> Latents:
    folder.mkdir()
    starts = range(0, samples, SHARD)
    for number, first in enumerate(starts):
        rows = np.arange(first, min(first + SHARD, samples))
        mean, std = (
            part.reshape(len(rows), *SHAPE)
            for part in noise.normal_pairs(0, Purpose.SAMPLE_NOISE, rows, count=int(np.prod(SHAPE)))
        )
        publish_latents(folder, number, first=first, mean=mean, std=np.abs(std), labels=rows % 1000, dtype=dtype)
    shards.publish_index(folder, SPLIT, num_shards=len(starts))
    info = LatentsInfo(
        channels=SHAPE[0],
        size=SHAPE[1],
        num_classes=1000,
        class_names=tuple(str(number) for number in range(1000)),
        scale=0.18215,
        shift=0.0,
        autoencoder="0" * 64,
        count=samples,
        dtype=dtype,
    )
    records.publish(folder / RECORD, info.dump())
    latents = Latents(folder)
    latents.verify()
    return latents


def write_files(folder: Path, latents: Latents) -> None:
    for sample in range(latents.num_samples):
        np.save(folder / f"{sample:09d}.npy", np.concatenate(latents.moments([sample]), axis=1)[0])


def read_files(folder: Path, indices: np.ndarray) -> np.ndarray:
    return np.stack([np.load(folder / f"{sample:09d}.npy") for sample in indices])


def drain(batches: Iterator[object]) -> None:
    """Consume as training does: a batch is gone when the next one comes, so its memory is used again."""
    deque(batches, maxlen=0)


def measure_in_turn(contenders: Mapping[str, Callable[[], object]], *, repeats: int) -> dict[str, list[float]]:
    """Seconds of each contender, round by round; the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in seconds.items()}


def ratio(base: Sequence[float], other: Sequence[float]) -> float:
    """The median of the rounds' ratios: what slows a whole round cancels."""
    return statistics.median(one / two for one, two in zip(base, other, strict=True))


if __name__ == "__main__":
    main()
