"""A grid of images from one milestone, as a PNG: what `stx sample` asks of the worker. No stage: it reads the store and
writes one picture, wherever it was asked for.

    request  {milestone, autoencoder (folders), shape, interpolant, columns, output, protocol}
    protocol {labels, seed, weights, solver, steps, guidance, interval, ...}: it stands in the picture, too, as the text
             "stx"

Image j starts from Philox(seed, j), as sample j of a sample stage of that seed does. Small images are enlarged by a
whole number.
"""

import io
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from jobs import files
from stx.model import rows
from stx.paths import PartDir, StageDir
from stx.worker import sit_weights
from stx.worker.autoencoder import load
from stx.worker.sample import sampled

CHUNK = 64
GAP = 2  # pixels between the images, white
SMALLEST = 64  # pixels of a side; smaller ones are enlarged
SAY_S = 5.0


def make(request: Mapping[str, Any]) -> None:
    """Sample, decode, lay out, write."""
    images = _images(request)
    protocol = PngInfo()
    protocol.add_text("stx", json.dumps(request["protocol"], sort_keys=True))
    stream = io.BytesIO()
    picture = Image.fromarray(laid_out(images, columns=request["columns"]))
    picture.save(stream, format="png", pnginfo=protocol)
    output = Path(request["output"]).absolute()
    files.write(output.parent.resolve() / output.name, stream.getvalue())  # a user's own folder may be a link


def _images(request: Mapping[str, Any]) -> NDArray[np.uint8]:
    protocol, shape = request["protocol"], request["shape"]
    model = sit_weights.milestone(PartDir(Path(request["milestone"])), section=protocol["weights"], shape=shape)
    autoencoder = load(StageDir(Path(request["autoencoder"])).payload)
    labels, made = torch.tensor(protocol["labels"]), []
    began = said = time.monotonic()
    for first, last in rows.spans(len(labels), batch=CHUNK):
        latents = sampled(
            model,
            np.arange(first, last),
            labels[first:last],
            seed=protocol["seed"],
            sampler=protocol,
            interpolant=request["interpolant"],
        )
        made.append(autoencoder.decode(latents).permute(0, 2, 3, 1).numpy())
        now = time.monotonic()
        if last < len(labels) and now - said > SAY_S:
            rate, said = last / (now - began), now
            left = (len(labels) - last) / rate
            sys.stderr.write(f"{last} of {len(labels)} images, {rate:.3g}/s, {left:.0f} s left\n")
            sys.stderr.flush()
    return np.concatenate(made)


def laid_out(images: NDArray[np.uint8], *, columns: int) -> NDArray[np.uint8]:
    """uint8 images (N, H, W, C) row by row in `columns` columns: (rows, width) if C is 1, else (rows, width, 3)."""
    factor = max(1, -(-SMALLEST // images.shape[1]))
    tiles = images.repeat(factor, axis=1).repeat(factor, axis=2)
    count, height, width, channels = tiles.shape
    lines = -(-count // columns)
    grid = np.full((lines * (height + GAP) + GAP, columns * (width + GAP) + GAP, channels), 255, dtype=np.uint8)
    for place, tile in enumerate(tiles):
        top, left = (GAP + at * (size + GAP) for at, size in zip(divmod(place, columns), (height, width), strict=True))
        grid[top : top + height, left : left + width] = tile
    return grid[:, :, 0] if channels == 1 else grid
