"""Real digits and a user's own images into shards."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jobs import runtime
from stx.errors import DataError
from stx.paths import StageDir
from stx.worker import images
from stx.worker.attempt import InputPath, Yielded

SCIENCE = {"source": "mnist5k", "resolution": 32, "held_out": 500}


def as_input(attempt) -> InputPath:
    return InputPath("images", attempt.key, None, attempt.stage.path)


def test_five_thousand_digits_are_split_by_class_and_published(workshop, mnist, monkeypatch) -> None:
    # Read once a session: it takes seconds.
    monkeypatch.setattr(images.data, "mnist5k", lambda *, resolution: mnist)
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
    monkeypatch.setattr(images.data, "mnist5k", lambda *, resolution: digits)
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


OWN = {"source": {"form": "folder", "version": "v1"}, "resolution": 8, "held_out": 4}


@pytest.fixture
def pets(tmp_path) -> Path:
    """Two classes of 300 and 310 small PNGs."""
    root = tmp_path / "pets"
    draw = np.random.Generator(np.random.PCG64(0))
    for name, count in (("cat", 300), ("dog", 310)):
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(root / name / f"{number:03}.png")
    return root


def own(workshop, pets, *, science=OWN, **where):
    return workshop.attempt("images", science=science, where={"source": {"path": str(pets), **where}})


def small_shards(monkeypatch) -> None:
    monkeypatch.setattr(images, "SHARD", 100)


def test_a_users_folder_is_cut_into_shards_of_colour_images(workshop, pets, monkeypatch) -> None:
    small_shards(monkeypatch)
    attempt = own(workshop, pets, num_images=610, num_classes=2)
    images.run(attempt)
    info = images.read_info(as_input(attempt))
    assert info.class_names == ("cat", "dog")
    assert (info.channels, info.counts) == (3, {"train": 606, "held_out": 4})
    assert images.read_split(as_input(attempt), "held_out").labels.tolist() == [0, 0, 1, 1]
    train = images.read_split(as_input(attempt), "train")
    assert train.labels.bincount().tolist() == [298, 308]
    held_out = {"000.png": 0}
    first = np.asarray(Image.open(pets / "cat" / "000.png"))
    assert (train.images == torch.from_numpy(first.copy()).permute(2, 0, 1)).all(dim=(1, 2, 3)).sum() <= len(held_out)
    assert len(list(attempt.stage.payload.glob("train-*.tar"))) == 7


def test_threads_and_interruptions_do_not_change_a_byte(workshop, pets, monkeypatch, stop, payload_digest) -> None:
    small_shards(monkeypatch)
    straight = own(workshop, pets)
    images.run(straight)
    expected = payload_digest(straight)
    for path in (straight.stage.result.artifact, *straight.stage.payload.iterdir()):
        path.unlink()
    stop.after(2)
    stopped = own(workshop, pets)
    with pytest.raises(Yielded):
        images.run(stopped)
    kept = {path.name: path.stat().st_ino for path in stopped.stage.payload.glob("train-*.tar")}
    assert 0 < len(kept) < 7
    monkeypatch.setattr(runtime, "stop_requested", lambda: False)
    resumed = dataclasses.replace(own(workshop, pets), threads=4)
    images.run(resumed)
    assert {name: (resumed.stage.payload / name).stat().st_ino for name in kept} == kept
    assert payload_digest(resumed) == expected


def test_a_request_to_stop_is_heard_within_a_shard(workshop, pets, monkeypatch, stop) -> None:
    monkeypatch.setattr(images.data, "TOGETHER", 50)
    stop.now()
    attempt = own(workshop, pets)
    with pytest.raises(Yielded):
        images.run(attempt)
    assert not list(attempt.stage.payload.iterdir())


def test_broken_images_are_listed_in_one_error(workshop, pets) -> None:
    for number in range(11):
        (pets / "dog" / f"{number:03}.png").write_bytes(b"" if number else b"text")
    (pets / "cat" / "007.png").write_bytes((pets / "cat" / "007.png").read_bytes()[:60])
    attempt = own(workshop, pets)
    with pytest.raises(DataError) as caught:
        images.run(attempt)
    message = str(caught.value)
    assert message.startswith(f"{pets}\n  12 of 610 images cannot be used:\n    cat/007.png: ")
    assert "dog/000.png: no JPEG, PNG, WEBP image\n    dog/001.png: the file is empty" in message
    assert "... and 2 more" in message
    assert "new `version:`" in message
    assert not attempt.stage.result.artifact.exists()


def test_a_source_that_changed_or_is_not_as_declared_is_refused(workshop, pets) -> None:
    with pytest.raises(DataError, match="num_images = 600 was declared, and there are 610"):
        images.run(own(workshop, pets, num_images=600))
    images.run(own(workshop, pets))
    Image.new("RGB", (8, 8)).save(pets / "cat" / "more.png")
    with pytest.raises(DataError, match="source changed since this stage first ran"):
        images.run(own(workshop, pets))


def test_a_limit_takes_the_first_of_each_class(workshop, pets) -> None:
    attempt = own(workshop, pets, science=OWN | {"limit": 20, "channels": 1})
    images.run(attempt)
    info = images.read_info(as_input(attempt))
    assert (info.channels, info.counts) == (1, {"train": 16, "held_out": 4})
    with pytest.raises(DataError, match="limit takes 305 of each class, the smallest has 300"):
        images.run(own(workshop, pets, science=OWN | {"limit": 610}))


def test_a_large_split_is_decoded_when_it_is_read(workshop, pets, monkeypatch) -> None:
    small_shards(monkeypatch)
    attempt = own(workshop, pets)
    images.run(attempt)
    whole = images.read_split(as_input(attempt), "train")
    monkeypatch.setattr(images, "WHOLE_BYTES", 1000)
    lazy = images.read_split(as_input(attempt), "train")
    assert not isinstance(lazy.images, torch.Tensor)
    assert torch.equal(lazy.labels, whole.labels)
    assert lazy.images.shape == whole.images.shape
    for rows in (
        slice(95, 205),
        slice(600, 700),
        np.array([605, 0, 99, 100]),
        torch.tensor([3, 3]),
        17,
        -1,
        slice(0, 0),
    ):
        assert torch.equal(lazy.images[rows], whole.images[rows]), rows
    assert len(lazy.images) == 606
    with pytest.raises(IndexError):
        lazy.images[606]


def test_a_damaged_image_of_a_large_split_is_named_when_it_is_read(workshop, pets, monkeypatch) -> None:
    small_shards(monkeypatch)
    monkeypatch.setattr(images, "WHOLE_BYTES", 1000)
    attempt = own(workshop, pets)
    images.run(attempt)
    path = attempt.stage.payload / "train-00003.tar"
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 6] ^= 1
    path.write_bytes(data)
    lazy = images.read_split(as_input(attempt), "train")
    assert len(lazy.images[0:300]) == 300
    with pytest.raises(DataError, match=r"train-00003.tar\n  damaged: sample 000000300"):
        lazy.images[300:301]
    path.unlink()
    with pytest.raises(DataError, match="the shard is missing"):
        images.read_split(as_input(attempt), "train").images[350]
