"""Real digits into shards."""

import pytest

from stx.paths import StageDir
from stx.worker import images
from stx.worker.attempt import InputPath, Yielded

SCIENCE = {"source": "mnist5k", "resolution": 32, "held_out": 500}


def as_input(attempt) -> InputPath:
    return InputPath("images", attempt.key, None, attempt.stage.path)


def test_five_thousand_digits_are_split_by_class_and_published(workshop, mnist, monkeypatch) -> None:
    # Read once a session: it takes seconds.
    monkeypatch.setattr(images.data, "source_images", lambda source, *, resolution: mnist)
    attempt = workshop.attempt("images", science=SCIENCE)
    images.run(attempt)
    info = images.read_info(as_input(attempt))
    assert (info.resolution, info.channels, info.num_classes) == (32, 1, 10)
    assert info.counts == {"train": 4500, "held_out": 500}
    held_out = images.read_split(as_input(attempt), "held_out")
    assert held_out.images.shape == (500, 1, 32, 32)
    assert held_out.labels.bincount().tolist() == [50] * 10
    train = images.read_split(as_input(attempt), "train")
    assert train.labels.bincount().tolist() == [450] * 10
    assert int(train.images[:, :, :2].max()) == 0, "the padding is black"


def test_a_stopped_attempt_keeps_its_shards_and_ends_in_the_same_digest(
    workshop, digits, monkeypatch, stop, payload_digest
) -> None:
    monkeypatch.setattr(images.data, "source_images", lambda source, *, resolution: digits)
    few = SCIENCE | {"held_out": 30}
    first = workshop.attempt("images", science=few)
    stop.now()
    with pytest.raises(Yielded):
        images.run(first)
    kept = {path.name: path.stat().st_ino for path in StageDir(first.stage.path).payload.glob("train-*.tar")}
    stop.never()
    second = workshop.attempt("images", science=few)
    images.run(second)
    assert kept
    assert {name: (second.stage.payload / name).stat().st_ino for name in kept} == kept
    resumed = payload_digest(second)
    for path in (second.stage.result.artifact, *second.stage.payload.iterdir()):
        path.unlink()
    images.run(workshop.attempt("images", science=few))
    assert payload_digest(second) == resumed
