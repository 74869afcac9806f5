"""The inspect stage of one run: what its milestones hold inside. It grows: one part per milestone, made when that
milestone is there.

    parts/<images>/inspect.json  times, blocks, labels, class_names and all else the arrays depend on
                   images.npy    uint8 (n, H, W, C): held-out images, classes in turn
                   noisy.npy     uint8 (n, T, H, W, C): their x_t, decoded; equal noise at every t
                   pca.npy       uint8 (n, T, B, g, g, 3): components of the tokens after each block, true label
                   guided.npy    uint8 (n, T, 2, g, g, 3): f_c and f_u + guidance (f_c - f_u) of the run's own teacher
                                 at its block, in one basis; absent for a run without a teacher
                   probes.npy    float32 (T, B): accuracy on held-out images of a ridge classifier, fitted to train
                                 images, on hidden states averaged over the tokens

Components are those of what is left of a hidden state when its mean over all held-out images that are looked at is
taken away, at each place: without that the place, which the position embedding tells every token, is nearly all that is
seen. For the probes the network gets the null label: the true one is part of what it computes with, and would be found.
Networks see chunks of `batch` rows. A file that is there is not made again.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stx.alignment.guided_teacher import guided_target, teacher_features
from stx.data.shards import npy_bytes
from stx.evaluation import components, probe
from stx.evaluation.probe import Labelled
from stx.worker import publish, sit_weights
from stx.worker.attempt import Attempt
from stx.worker.look import Look
from stx.worker.progress import Progress, conclude_part
from stx.worker.sample import ready_parts
from stx.worker.subject import TEST, TRAIN, Rows, Subject, subject_of

RECORD = "inspect.json"


def run(attempt: Attempt) -> None:
    """Make every part that is wanted, whose milestone is there, and that is not; look again after each."""
    if not ready_parts(attempt, upstream="run"):
        return
    attempt.heart.beat("start")
    subject = subject_of(attempt)
    while todo := ready_parts(attempt, upstream="run"):
        attempt.leave_if_asked()
        _make_part(attempt, images=todo[0], subject=subject)


def _make_part(attempt: Attempt, *, images: int, subject: Subject) -> None:
    science, source = attempt.science, attempt.input("run").stage.part("train", images)
    model = sit_weights.milestone(source, section=attempt.where["section"], shape=attempt.where["shape"])
    pictured, held_out = science["num_images"], len(subject.held_out.labels)
    probed = len(subject.train.labels) + science["probe"]["num_test"]
    made: dict[str, tuple[Callable[[Look], NDArray[Any]], int]] = {  # and the rows that are looked at, for each t
        "images.npy": (pixels, 0),
        "noisy.npy": (noisy, pictured),
        "pca.npy": (pictures, held_out),
        "probes.npy": (probes, probed),
    }
    if subject.teacher is not None:
        made["guided.npy"] = (guided, held_out)
    rows_of = {name: count * len(science["times"]) for name, (_, count) in made.items()}
    look = Look(Progress(attempt, total=sum(rows_of.values()), phase="evaluate"), subject, model)
    folder = attempt.stage.part(attempt.kind, images).path
    publish.publish_json(folder / RECORD, record(look))
    for name, (make, _) in made.items():
        if (folder / name).exists():
            look.progress.skip(rows_of[name])
        else:
            publish.publish_bytes(folder / name, npy_bytes(make(look)))
    conclude_part(look.progress, images=images)


def record(look: Look) -> dict[str, Any]:
    """inspect.json."""
    attempt, science, guided = look.progress.attempt, look.science, None
    if look.subject.teacher is not None:
        guided = {"teacher": attempt.input("teacher").key, **attempt.where["guided"]}
    return {
        "times": list(science["times"]),
        "blocks": look.blocks,
        "labels": look.pictured.labels.tolist(),
        "class_names": list(look.subject.class_names),
        "num_images": science["num_images"],
        "split": TEST,
        "weights": attempt.where["section"],
        "seed": science["seed"],
        "probe": {**science["probe"], "train_split": TRAIN, "test_split": TEST, "condition": "null"},
        "guided": guided,
    }


def pixels(look: Look) -> NDArray[np.uint8]:
    """The images themselves (n, H, W, C)."""
    images = look.pictured.images
    assert images is not None, "held-out rows have images"
    return images.permute(0, 2, 3, 1).numpy()


def noisy(look: Look) -> NDArray[np.uint8]:
    """x_t, decoded (n, T, H, W, C)."""

    def decoded(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return look.subject.autoencoder.decode(x).permute(0, 2, 3, 1)

    return look.at_every_time(lambda t: look.over_rows(look.pictured, decoded, t=t))


def pictures(look: Look) -> NDArray[np.uint8]:
    """Components of the tokens after each block (n, T, B, g, g, 3)."""

    def at(t: float) -> NDArray[np.uint8]:
        hidden = look.deviations(look.hidden, t=t)  # (n, B, tokens, D)
        return np.stack([components.picture(hidden[:, place]) for place in range(hidden.shape[1])], axis=1)

    return look.at_every_time(at)


def guided(look: Look) -> NDArray[np.uint8]:
    """The teacher's conditional feature beside the guided one (n, T, 2, g, g, 3)."""
    teacher, asked = look.subject.teacher, look.progress.attempt.where["guided"]

    def features(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:  # (R, 2, tokens, D)
        found = teacher_features(teacher, x, t, labels, block=asked["block"])
        return torch.stack([guided_target(found, guidance=one) for one in (1.0, asked["guidance"])], dim=1)

    def at(t: float) -> NDArray[np.uint8]:
        both = look.deviations(features, t=t)
        return components.side_by_side(both[:, 0], both[:, 1])

    return look.at_every_time(at)


def probes(look: Look) -> NDArray[np.float32]:
    """The accuracy of a linear probe at every t after every block (T, B)."""
    asked, subject = look.science["probe"], look.subject

    def accuracies(t: float) -> list[float]:
        train = _pooled(look, subject.train, t=t)
        test = _pooled(look, subject.held_out.first(asked["num_test"]), t=t)
        return [
            probe.accuracy(fitted, judged, num_classes=len(subject.class_names), ridge=asked["ridge"])
            for fitted, judged in zip(train, test, strict=True)
        ]

    return np.array([accuracies(t) for t in look.science["times"]], dtype=np.float32)


def _pooled(look: Look, seen: Rows, *, t: float) -> list[Labelled]:
    """Hidden states averaged over the tokens, without a label, after each block."""

    def pooled(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:  # (R, B, D)
        return look.hidden(x, t, torch.full_like(labels, look.model.null_label)).mean(dim=2)

    features = look.over_rows(seen, pooled, t=t)
    return [Labelled(features[:, place], seen.labels.numpy()) for place in range(features.shape[1])]
