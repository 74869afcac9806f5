"""Sources of the user's own at plan: what is counted, what is in the key, and what is refused by name."""

import os

import pytest
from PIL import Image

from stx.stages import images

SOURCE = "source: {folder: pets, version: v1}"


@pytest.fixture
def pets(tmp_path):
    """Three classes of 12, 10 and 11 pictures beside the experiment file (the plan never opens them)."""
    for name, count in (("ant", 12), ("cat", 10), ("dog", 11)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(count):
            (tmp_path / "pets" / name / f"{number}.png").write_bytes(b"")
    return tmp_path / "pets"


@pytest.fixture
def own(small):
    """The small experiment on them."""
    return small.replace("source: mnist5k, resolution: 32, held_out: 500", f"{SOURCE}, resolution: 32, held_out: 6")


def test_a_folder_is_counted_and_its_path_is_out_of_the_key(expand, own, pets):
    planned = expand(own)
    node = planned["images"]
    assert node.spec.science["source"] == {"form": "folder", "version": "v1"}
    assert node.where["source"] == {"path": str(pets)}
    assert node.cost.bytes == 33 * 3 * 32 * 32
    assert planned["teacher"].where["shape"]["num_classes"] == 3
    assert planned["features"].cost.bytes == 27 * 4 * 2 * 16 * 32 * 2
    key = node.key
    os.rename(pets, pets.with_name("moved"))
    assert expand(own, ("folder: pets", "folder: moved"))["images"].key == key
    assert expand(own, ("folder: pets", "folder: moved"), ("v1", "v2"))["images"].key != key


def test_a_declared_source_is_not_looked_at(expand, own):
    declared = ("version: v1", "version: v1, num_images: 33, num_classes: 3")
    node = expand(own, declared)["images"]
    assert node.where["source"].items() >= {"num_images": 33, "num_classes": 3}.items()
    assert node.cost.bytes == 33 * 3 * 32 * 32
    tars = expand(own, ("folder: pets, version: v1", "tars: pets, version: v1, num_images: 33, num_classes: 3"))[
        "images"
    ]
    assert tars.key != node.key


def test_limit_takes_the_same_number_of_each_class(expand, own, pets):
    planned = expand(own, ("held_out: 6", "held_out: 6, limit: 15"))
    assert planned["images"].cost.bytes == 15 * 3 * 32 * 32
    assert planned["features"].cost.bytes == 9 * 4 * 2 * 16 * 32 * 2
    assert expand(own)["images"].key != planned["images"].key
    gray = expand(own, ("held_out: 6", "held_out: 6, channels: 1"))
    assert gray["images"].cost.bytes == 33 * 32 * 32


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("folder: pets", "folder: nowhere", ".source.folder = nowhere", "No such file or directory"),
        ("folder: pets", "folder: nowhere", ".source.folder = nowhere", "declare num_images and num_classes"),
        ("folder: pets", "folder: ''", '.source.folder = ""', "must not be empty"),
        ("folder: pets", "dataset: pets", ".source.dataset = pets", "no dataset on disk: it has no dataset_info.json"),
        ("folder: pets", 'tars: "pets/{0..1}.tar"', ".source.tars = ", "2 of 2 tars are missing"),
        (SOURCE, "source: pets", ".source = pets", "{folder: PATH, version: WORD}"),
        (SOURCE, "source: 3", ".source = 3", "{tars: PATH, version: WORD}"),
        (SOURCE, "source: {version: a}", ".source", "0 of dataset, folder, tars are given"),
        (SOURCE, "source: {folder: a, tars: b, version: a}", ".source", "2 of dataset, folder, tars are given"),
        (SOURCE, "source: {folder: pets}", ".source.version", '"version" is required'),
        (SOURCE, "source: {folder: pets, version: 1}", ".source.version = 1", "must be text"),
        ("version: v1", "version: v1, classes: 3", ".source.classes = 3", 'did you mean "num_classes"'),
        ("version: v1", "version: v1, path: x", ".source.path = x", "no such option here"),
        ("version: v1", "version: v1, num_images: 33", ".source", "given together"),
        ("version: v1", "version: v1, class_names: [a, b, c]", ".source.class_names", "class_names belong to tars"),
        ("held_out: 6", "held_out: 7", ".held_out = 7", "a multiple of 3 below 33"),
        (
            "held_out: 6",
            "held_out: 30",
            ".held_out = 30",
            "holds out 10 of each class, the smallest has 10\n  at most 27",
        ),
        ("held_out: 6", "held_out: 6, limit: 16", ".limit = 16", "a multiple of 3"),
        (
            "held_out: 6",
            "held_out: 6, limit: 33",
            ".limit = 33",
            "takes 11 of each class, the smallest has 10\n  at most 30",
        ),
        ("held_out: 6", "held_out: 6, limit: 6", ".held_out = 6", "below 6"),
        ("held_out: 6", "held_out: 6, channels: 4", ".channels = 4", "3 (RGB) or 1 (gray)"),
        ("resolution: 32", "resolution: 2048", ".resolution = 2048", "at most 1024"),
    ],
)
def test_a_source_that_cannot_be_used_is_refused_with_its_place(refused, own, pets, old, new, place, words):
    message = refused(own, (old, new))
    assert message.startswith(f":5: stages.images{place}"), message
    assert words in message


def test_what_is_wrong_inside_of_a_source_is_named(refused, own, pets):
    (pets / "cat" / "notes.txt").write_bytes(b"x")
    assert "1 entry of a class folder is no image:\n    cat/notes.txt" in refused(own)
    (pets / "cat" / "notes.txt").unlink()
    for name in ("ant", "cat"):
        (pets / name).rename(pets / f".{name}")
    assert "one class only (dog)" in refused(own)


def test_colour_said_or_not_is_one_data_set(expand, own, pets):
    said = expand(own, ("held_out: 6", "held_out: 6, channels: 3"))["images"].key
    assert said == expand(own)["images"].key
    assert said != expand(own, ("held_out: 6", "held_out: 6, channels: 1"))["images"].key


def test_the_digits_have_their_own_limits(expand, refused, small):
    assert expand(small, ("held_out: 500", "held_out: 20, limit: 80"))["images"].cost.bytes == 80 * 32 * 32
    assert "mnist5k is gray" in refused(small, ("held_out: 500", "held_out: 500, channels: 1"))
    assert ":5: stages.images.limit = 5010\n" in refused(small, ("held_out: 500", "limit: 5010, held_out: 500"))


def test_a_plan_does_not_decode(expand, own, pets, monkeypatch):
    monkeypatch.setattr(Image, "open", None)
    assert expand(own)["images"]


def test_a_smoke_run_takes_what_the_smallest_class_has(pets):
    digits = images.Options(source="mnist5k", resolution=32)
    assert images.smoke(digits) == {"limit": 80, "held_out": 20}
    for number in range(3, 10):
        (pets / "cat" / f"{number}.png").unlink()
    own = images.Options(source={"folder": str(pets), "version": "v1"}, resolution=32, held_out=3)
    assert images.smoke(own) == {"limit": 9, "held_out": 3}
