"""Encoding: images a second and core, against what the machine's arithmetic would allow.

    python tools/bench/encode.py [--repetitions 5] [--no-stage]

bound    the best this core did in the same run, a large matrix product or a 3x3 convolution of 256 channels (fp32), in
         FLOP/s, over the encoder's FLOPs an image (stx/sizes.py)
encoder  the network alone, whole chunks: the quickstart's autoencoder (1x32x32, chunks of 64), and the shape of
         sd-vae-ft-mse (3x256x256, chunks of 1), both with fresh weights; medians
stage    a latents stage of the quickstart's shape as a user runs it, on one rank and on two, a core each: reading PNG,
         encoding, writing shards and their index; from its artifact.json, so without the start of the worker
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import functional as F

from stx import sizes
from stx.model import autoencoder

EXPERIMENT = """\
name: encode
stages:
  images: {kind: images, source: mnist5k, resolution: 32, held_out: 500}
  vae: {kind: autoencoder, images: images, steps: 1}
  latents: {kind: latents, images: images, autoencoder: vae, seed: SEED}
"""
CLUSTER = "poll_s: 0.2\nstages: {latents: {ranks: RANKS}}\n"


class Encoder(NamedTuple):
    """An autoencoder's shape, and the size of the chunks it is given."""

    channels: tuple[int, ...]
    layers: int
    mid_attention: bool
    image_channels: int
    resolution: int
    chunk: int

    @property
    def flops(self) -> float:
        """Of one image."""
        return sizes.encode_flops(
            self.channels,
            resolution=self.resolution,
            layers=self.layers,
            image_channels=self.image_channels,
            latent_channels=4,
        )


ENCODERS = {
    "quickstart": Encoder((16, 32, 32), 1, False, image_channels=1, resolution=32, chunk=64),
    "sd-vae-ft-mse": Encoder((128, 256, 512, 512), 2, True, image_channels=3, resolution=256, chunk=1),
}


def seconds_of(work: Callable[[], object], repetitions: int) -> list[float]:
    """Of each repetition, after a warm-up."""
    work()
    found = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return found


def peak(repetitions: int) -> float:
    """FLOP/s: the better of a matrix product and a convolution, at its best."""
    left, right = torch.randn(2, 1536, 1536)
    image, weight = torch.randn(4, 256, 64, 64), torch.randn(256, 256, 3, 3)
    product = 2 * 1536**3 / min(seconds_of(lambda: left @ right, repetitions))
    convolution = 2 * 4 * 64**2 * 9 * 256**2 / min(seconds_of(lambda: F.conv2d(image, weight, padding=1), repetitions))
    print(f"one core: matrix product {product / 1e9:.1f} GFLOP/s, convolution {convolution / 1e9:.1f} GFLOP/s")
    return max(product, convolution)


def encoder_rate(encoder: Encoder, repetitions: int) -> float:
    """Images a second of the network alone."""
    model = autoencoder.build(
        autoencoder.arguments(
            image_channels=encoder.image_channels,
            resolution=encoder.resolution,
            channels=encoder.channels,
            latent_channels=4,
            layers_per_block=encoder.layers,
            mid_attention=encoder.mid_attention,
        )
    ).eval()
    shape = (encoder.chunk, encoder.image_channels, encoder.resolution, encoder.resolution)
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    with torch.no_grad():
        seconds = seconds_of(lambda: autoencoder.encode(model, autoencoder.pixels(images)), repetitions)
    return encoder.chunk / statistics.median(seconds)


def stage_rate(folder: Path, *, ranks: int) -> float:
    """Images a second of a latents stage on so many ranks."""
    (folder / "e.yaml").write_text(EXPERIMENT.replace("SEED", str(ranks)))
    (folder / "c.yaml").write_text(CLUSTER.replace("RANKS", str(ranks)))
    command = [sys.executable, "-m", "stx.cli", "submit", "e.yaml", "--cluster", "c.yaml", "--update"]
    env = {**os.environ, "STX_STORE": str(folder / "store"), "STX_SLOTS": str(folder / "slots")}
    before = set(folder.glob("store/stages/latents-*"))
    subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)
    (stage,) = set(folder.glob("store/stages/latents-*")) - before
    info = json.loads((stage / "artifact.json").read_text())["info"]
    return float(info["rows_made"] / info["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--no-stage", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    most = peak(arguments.repetitions)

    def line(name: str, rate: float, bound: float) -> None:
        print(f"{name:28} {rate:9.2f} images/s a core, {rate / bound:6.1%} of the bound {bound:9.2f}")

    for name, encoder in ENCODERS.items():
        rate = encoder_rate(encoder, arguments.repetitions)
        line(f"encoder, {name}", rate, most / encoder.flops)
    if not arguments.no_stage:
        bound = most / ENCODERS["quickstart"].flops
        with tempfile.TemporaryDirectory() as folder:
            for ranks in (1, 2):
                line(f"stage, quickstart, {ranks} rank(s)", stage_rate(Path(folder), ranks=ranks) / ranks, bound)


if __name__ == "__main__":
    main()
