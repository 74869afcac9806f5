"""The classifier stage: trains the judge on the train split and measures its accuracy on held_out.

payload/classifier.safetensors   weights
        classifier.json          what it is built with, class names, accuracy on held_out
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.runtime import Heart
from stx import records
from stx.data import noise
from stx.data.noise import Purpose
from stx.data.order import Order
from stx.model import rows
from stx.model.autoencoder import pixels
from stx.model.blocks import initialised
from stx.model.classifier import Classifier, accuracy
from stx.worker import publish, tensors
from stx.worker.attempt import Attempt
from stx.worker.device import device
from stx.worker.fit import fit
from stx.worker.images import Split, read_info, read_split
from stx.worker.inputs import verified_payload
from stx.worker.progress import Progress, conclude

GRAD_CLIP = 1.0


class Judge(NamedTuple):
    """A published classifier: the network in eval mode on the device, and its classifier.json."""

    network: Classifier
    about: dict[str, Any]


def run(attempt: Attempt) -> None:
    """Train, measure, publish."""
    science, source = attempt.science, attempt.input("images")
    images = read_info(source)
    shape = {
        "image_channels": images.channels,
        "channels": list(science["channels"]),
        "feature_width": science["channels"][-1],
        "num_classes": images.num_classes,
    }
    network = initialised(lambda: _build(shape), seed=noise.init_seed(science["seed"], Purpose.CLASSIFIER_INIT))
    network.to(device())
    progress = Progress(attempt, total=science["steps"] * science["batch"])
    fit(
        attempt,
        module=network,
        loss=_loss(network, read_split(source, "train"), seed=science["seed"], batch=science["batch"]),
        steps=science["steps"],
        batch=science["batch"],
        lr=science["lr"],
        grad_clip=GRAD_CLIP,
        log_every=attempt.where["log_every"],
    )
    network.eval()
    quality = _quality(network, read_split(source, "held_out"), batch=science["batch"], heart=attempt.heart)
    about = {
        "shape": shape,
        "resolution": images.resolution,
        "class_names": list(images.class_names),
        "held_out": quality,
    }
    payload = attempt.stage.payload
    publish.publish_chunks(payload / "classifier.safetensors", tensors.chunks(network.state_dict()))
    publish.publish_json(payload / "classifier.json", about)
    conclude(progress, info=quality)


def load(payload: Path) -> Judge:
    """A published classifier."""
    about = records.read(verified_payload(payload, "classifier.json"))
    weights = verified_payload(payload, "classifier.safetensors")
    network = _build(about["shape"])
    network.load_state_dict(tensors.read(weights))
    return Judge(network.requires_grad_(False).eval().to(device()), about)


def _build(shape: dict[str, Any]) -> Classifier:
    return Classifier(**shape | {"channels": tuple(shape["channels"])})


def _loss(network: Classifier, train: Split, *, seed: int, batch: int) -> Callable[[int], dict[str, Tensor]]:
    order = Order((len(train.labels),), seed=seed, purpose=Purpose.CLASSIFIER_ORDER)

    def loss(step: int) -> dict[str, Tensor]:
        chosen = order.indices(range(step * batch, (step + 1) * batch))
        logits = network(pixels(train.images[chosen].to(device()))).logits
        return {"cross_entropy": F.cross_entropy(logits, train.labels[chosen].to(device()))}

    return loss


def _quality(network: Classifier, held_out: Split, *, batch: int, heart: Heart) -> dict[str, float]:
    def judge(chunk: Tensor) -> Tensor:
        heart.beat("evaluate")
        return network(pixels(chunk.to(device()))).logits.cpu()

    with torch.no_grad():
        logits = rows.chunked(judge, held_out.images, batch=batch)
    return {"accuracy": accuracy(logits, held_out.labels), "num_images": len(held_out.labels)}
