"""A store against the results it must hold."""

import pytest

from stx import records
from tools.chaos import compare


def publish(store, name, files):
    """A finished result whose files hold their own names."""
    folder = store / name
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).write_text(file)
    listed = {file: records.file_digest(folder / file) for file in files}
    digest = records.digest(listed)
    record = {"kind": "train", "key": "k", "images": 20, "files": listed, "info": {}, "digest": digest}
    records.write(folder / "artifact.json", record)
    return digest


@pytest.fixture
def finished(tmp_path):
    """A store with two results, and their digests."""
    names = ("stages/train-1/milestones/20", "stages/train-1/milestones/40")
    return tmp_path, {name: publish(tmp_path, name, ["weights.safetensors"]) for name in names}


def test_equal_stores_differ_in_nothing(finished):
    store, expected = finished
    assert compare.digests(store, ["train-1"]) == expected
    assert compare.differences(store, expected) == compare.Difference((), ())


def test_a_missing_result_is_lost(finished):
    store, expected = finished
    (store / "stages/train-1/milestones/40/artifact.json").unlink()
    assert compare.differences(store, expected).lost == ("stages/train-1/milestones/40",)


def test_another_digest_other_bytes_a_missing_file_and_a_damaged_record_are_wrong(finished):
    store, expected = finished
    first, second = expected
    assert compare.differences(store, expected | {first: "0" * 64}).wrong == (first,)
    (store / first / "weights.safetensors").write_text("other")
    assert compare.differences(store, expected).wrong == (first,)
    (store / first / "weights.safetensors").unlink()
    assert compare.differences(store, expected).wrong == (first,)
    (store / second / "artifact.json").write_text("{")
    assert compare.differences(store, expected).wrong == (first, second)


def test_a_payload_folder_is_compared_too(tmp_path):
    digest = publish(tmp_path, "stages/latents-1", ["shard.tar"])
    (tmp_path / "stages/latents-1/payload").mkdir()
    (tmp_path / "stages/latents-1/shard.tar").rename(tmp_path / "stages/latents-1/payload/shard.tar")
    assert compare.differences(tmp_path, {"stages/latents-1": digest}) == compare.Difference((), ())
