"""Damaged files: what is chosen, how it is spoilt, whether a message names it, and that it comes back."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.chaos import damage
from tools.chaos.damage import damaged


@given(st.binary(min_size=1, max_size=200), st.floats(0, 1, exclude_max=True))
def test_a_flip_changes_exactly_one_bit(data, where):
    bad = damaged(data, truncate=False, where=where)
    assert len(bad) == len(data)
    assert sum((one ^ other).bit_count() for one, other in zip(data, bad, strict=True)) == 1


@given(st.binary(min_size=1, max_size=200), st.floats(0, 1, exclude_max=True))
def test_a_truncation_loses_at_least_one_byte(data, where):
    bad = damaged(data, truncate=True, where=where)
    assert len(bad) < len(data)
    assert data.startswith(bad)


def test_an_artifact_is_damaged_in_what_it_promises(tmp_path):
    path = tmp_path / "artifact.json"
    record = {"digest": "0" * 64, "files": {"a": "1" * 64}, "images": None, "info": {"seconds": 3}, "kind": "x"}
    path.write_text(json.dumps(record, sort_keys=True))
    text = path.read_bytes()
    for step in range(50):
        path.write_bytes(text)
        damage.spoil(path, truncate=False, where=step / 50, backups=tmp_path / "backups", number=step)
        assert path.read_bytes().split(b'"info"')[1] == text.split(b'"info"')[1]
        assert path.read_bytes() != text


def test_a_restored_file_is_the_one_that_was_there(tmp_path):
    path = tmp_path / "stages" / "train-1" / "milestones" / "20" / "weights.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    one = damage.spoil(path, truncate=True, where=0.5, backups=tmp_path / "backups", number=1)
    assert one.is_standing()
    assert path.read_bytes() == b"wei"
    one.restore()
    assert not one.is_standing()
    assert path.read_bytes() == b"weights"


def test_a_record_is_named_by_its_own_path_only(tmp_path):
    path = tmp_path / "stages" / "train-1" / "stage.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    one = damage.spoil(path, truncate=True, where=0.5, backups=tmp_path / "b", number=1)
    assert one.named_in(f"{path}: not JSON", store=tmp_path)
    assert not one.named_in("the log is stages/train-1/attempts/001/rank-0.log", store=tmp_path)


def test_an_empty_or_missing_file_is_left_alone(tmp_path):
    (tmp_path / "empty").touch()
    for name in ("empty", "missing"):
        assert damage.spoil(tmp_path / name, truncate=True, where=0.5, backups=tmp_path / "b", number=1) is None


def test_a_file_is_named_by_its_path_or_its_folder_and_not_by_another_stage(tmp_path):
    path = tmp_path / "stages" / "latents-1" / "payload" / "train-00000.tar"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * 8)
    one = damage.spoil(path, truncate=False, where=0.5, backups=tmp_path / "b", number=1)
    assert one.named_in(f"{path}: damaged", store=tmp_path)
    assert one.named_in("remove /elsewhere/stages/latents-1 and submit again", store=tmp_path)
    assert not one.named_in("stages/latents-2/payload/train-00000.tar: damaged", store=tmp_path)


@pytest.fixture
def store(tmp_path):
    """A train stage with two checkpoints and a milestone, an encoded stage, a journal."""
    for name in (
        "stages/train-1/stage.json",
        "stages/train-1/attempts/001.intent.json",
        "stages/train-1/attempts/001/heartbeat.json",
        "stages/train-1/attempts/001/metrics.jsonl",
        "stages/train-1/checkpoints/20-001/manifest.json",
        "stages/train-1/checkpoints/40-001/manifest.json",
        "stages/train-1/checkpoints/40-001/rank-0.safetensors",
        "stages/train-1/checkpoints/.60-001.aside/rank-0.safetensors",
        "stages/train-1/milestones/20/weights.safetensors",
        "stages/train-1/milestones/20/artifact.json",
        "stages/train-1/milestones/40/weights.safetensors",
        "stages/latents-1/payload/train-00000.tar",
        "stages/latents-1/artifact.json",
        "stages/features-1/payload/train-00000.tar",
        "experiments/e/events-2.jsonl",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (
            "checkpoint",
            ["train-1/checkpoints/40-001/manifest.json", "train-1/checkpoints/40-001/rank-0.safetensors"],
        ),
        ("aside", ["train-1/checkpoints/.60-001.aside/rank-0.safetensors"]),
        ("heartbeat", ["train-1/attempts/001/heartbeat.json"]),
        ("metrics", ["train-1/attempts/001/metrics.jsonl"]),
        # What is not finished (no artifact.json) promises nothing yet.
        ("payload", ["latents-1/payload/train-00000.tar", "train-1/milestones/20/weights.safetensors"]),
        ("artifact", ["latents-1/artifact.json", "train-1/milestones/20/artifact.json"]),
        ("record", ["train-1/attempts/001.intent.json", "train-1/stage.json"]),
    ],
)
def test_each_class_of_files_is_found(store, target, expected):
    found = damage.targets(store, target, busy=lambda stage: False)
    assert sorted(str(path.relative_to(store / "stages")) for path in found) == expected


def test_a_temporary_file_is_left_alone_while_its_writer_lives(store):
    """The next moment it is linked to its name: a damaged record that no backup bears the name of."""
    folder = store / "stages/train-1/attempts"
    (folder / f".002.intent.json.{os.getpid()}-0123abcd.tmp").write_text("{}")
    (folder / ".002.intent.json.4194305-0123abcd.tmp").write_text("{}")
    found = damage.targets(store, "aside", busy=lambda stage: False)
    assert [path.name for path in found if path.parent == folder] == [".002.intent.json.4194305-0123abcd.tmp"]


def test_nothing_aside_is_touched_where_somebody_works(store):
    assert damage.targets(store, "aside", busy=lambda stage: stage.name == "train-1") == []
