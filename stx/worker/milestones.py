"""Milestones of a train stage: a checkpoint of the wanted images-seen count, exported as one file.

    milestones/<images>/weights.safetensors   raw.model.* raw.alignment.* ema.model.* ema.alignment.*
                                              and ema_<decay>.* for each further decay of the run

Raw weights are the fp32 masters. A milestone is made from the checkpoint of exactly its count and from nothing else. A
kill between the two loses nothing: the next attempt resumes from that checkpoint, or an earlier one, and comes by here
again.
"""

import logging
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from stx.errors import DataError
from stx.paths import RAW, WEIGHTS, ema_sections
from stx.worker import checkpoint as checkpoints
from stx.worker import publish, tensors
from stx.worker.attempt import Attempt
from stx.worker.checkpoint import Checkpoint
from stx.worker.zero.partition import MASTER

logger = logging.getLogger(__name__)


def publish_milestone(attempt: Attempt, checkpoint: Checkpoint, *, info: Mapping[str, Any]) -> None:
    """Publish the milestone of a checkpoint's count unless it stands."""
    part = attempt.stage.part("train", checkpoint.images)
    if part.artifact.exists():
        return
    digest = _export(checkpoint, part.path / WEIGHTS, emas=ema_sections(attempt.science["ema_decay"]).values())
    progress = checkpoint.progress
    known = {name: progress[name] for name in ("step", "updates", "skipped", "seconds", "lineage")}
    known |= {
        "attempt": attempt.number,
        "experiment": attempt.experiment,
        "host": socket.gethostname(),
        "world_size": attempt.world_size,
    }
    publish.finish(attempt, part, names={WEIGHTS: digest}, images=checkpoint.images, info=known | dict(info))


def _export(checkpoint: Checkpoint, path: Path, *, emas: Iterable[str]) -> str:
    """Publish the weights of a checkpoint, tensor by tensor: of a large model one at a time is in memory."""
    stored = {
        f"{prefix}.{name}": (section, name)
        for prefix, section in ((RAW, MASTER), *((ema, ema) for ema in emas))
        for name in checkpoint.names(section)
    }
    blank = {key: torch.empty(list(checkpoint.shapes[name]), device="meta") for key, (_, name) in stored.items()}
    with checkpoint.reader() as read_one:
        return publish.publish_chunks(path, tensors.chunks(blank, load=lambda key: read_one(*stored[key])))


def publish_passed(attempt: Attempt, goals: Iterable[int], *, images: int, rejected: Iterable[str]) -> None:
    """Publish those wanted milestones up to `images` that are not out yet and whose checkpoint is still there."""
    kept = {
        int(path.name.split("-")[0]): path
        for path in checkpoints.found(attempt.stage.checkpoints)
        if path.name not in set(rejected)
    }
    for goal in sorted(goals):
        missing = goal <= images and not attempt.stage.part("train", goal).artifact.exists()
        beat = attempt.heart.again
        if missing and goal in kept and checkpoints.verify(kept[goal], beat=beat) is None:
            publish_milestone(attempt, checkpoints.opened(kept[goal], beat=beat), info={})


def check_passed(attempt: Attempt, goals: Iterable[int], *, images: int) -> None:
    """Refuse to call a stage complete that passed a wanted count without keeping its weights.

    A count beyond `images` was wanted after the last step was done: it is the next attempt's.
    """
    published = attempt.stage.parts("train")
    missing = sorted(goal for goal in set(goals) - set(published) if goal <= images)
    if missing:
        raise DataError(
            f"milestone {missing[0]} (images seen) is wanted, but the run has passed it and kept no checkpoint of it",
            where=str(attempt.stage.path),
            hint=f"choose one of those that were kept: {', '.join(map(str, published)) or 'none'}; or a later one",
        )
