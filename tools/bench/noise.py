"""Noise: images/s per core of stx.data.noise against one numpy Generator per image. Must be at least 3x.

    python tools/bench/noise.py [--rows 64] [--repeats 15]

An image has three slots of 4096 normals (latents 4x32x32). Contenders run in turn, so that a busy machine slows them
alike; medians.
"""

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from stx.data import device_noise, noise
from stx.data.noise import Purpose

NORMALS = 3 * 4096
BASE, OURS = "numpy Generator per image", "stx.data.noise"
MUST = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = np.arange(arguments.rows)
    contenders = {
        BASE: lambda: _generators(rows),
        OURS: lambda: noise.normals(0, Purpose.TRAIN_NOISE, rows, count=NORMALS),
        "  its words alone": lambda: noise.words(0, Purpose.TRAIN_NOISE, rows, count=NORMALS),
    }
    seconds = measure_in_turn(contenders, repeats=arguments.repeats)
    on_torch = {"stx.data.device_noise, cpu": lambda: _on_torch(rows)}
    print(f"{'3 x 4096 normals an image':<28} {'images/s':>10} {'ratio':>7}")
    for name, values in seconds.items():
        rate = arguments.rows / statistics.median(values)
        print(f"{name:<28} {rate:>10.0f} {ratio(seconds[BASE], values):>6.2f}x")
    # Apart: its temporaries would take the others' warm memory.
    for name, values in measure_in_turn(on_torch, repeats=3).items():
        print(f"{name:<28} {arguments.rows / statistics.median(values):>10.0f}")
    found = ratio(seconds[BASE], seconds[OURS])
    print(f"{found:.2f}x, must be at least {MUST:.0f}x: {'ok' if found >= MUST else 'MISSED'}")


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


def _generators(rows: np.ndarray) -> np.ndarray:
    batch = np.empty((len(rows), NORMALS), dtype=np.float32)
    for row, out in zip(rows, batch, strict=True):
        generator = np.random.Generator(np.random.Philox(key=[0, 1], counter=[0, int(row), 0, 0]))
        generator.standard_normal(dtype=np.float32, out=out)
    return batch


def _on_torch(rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return device_noise.normal_pairs(0, Purpose.TRAIN_NOISE, torch.from_numpy(rows), count=NORMALS // 2)


if __name__ == "__main__":
    main()
