import hashlib
import logging

import pytest
import torch

from stx import records
from stx.spec import Artifact
from stx.worker import publish, tensors


def test_the_first_payload_file_stands_and_its_digest_is_returned(tmp_path, caplog):
    path = tmp_path / "payload" / "a.json"
    assert publish.publish_bytes(path, b"first") == hashlib.sha256(b"first").hexdigest()
    with caplog.at_level(logging.WARNING):
        assert publish.publish_bytes(path, b"second") == hashlib.sha256(b"first").hexdigest()
    assert path.read_bytes() == b"first"
    assert "a.json stands" in caplog.text
    assert [entry.name for entry in path.parent.iterdir()] == ["a.json"]


def test_pieces_are_hashed_while_written(tmp_path):
    path = tmp_path / "w.safetensors"
    digest = publish.publish_chunks(path, tensors.chunks({"w": torch.arange(5.0)}))
    assert digest == records.file_digest(path)


def test_the_artifact_comes_last_and_a_different_second_one_is_reported(workshop):
    attempt = workshop.attempt("classifier", science={})
    part = attempt.stage.result
    first = publish.finish(attempt, part, names={"a": "11"}, images=None, info={"seconds": 1})
    again = publish.finish(attempt, part, names={"a": "11"}, images=None, info={"seconds": 2})
    assert again.digest == first.digest
    assert attempt.notes == {}
    other = publish.finish(attempt, part, names={"a": "22"}, images=None, info={})
    assert other == first == Artifact.parse(records.read(part.artifact))
    assert attempt.notes["differs"] == [str(part.path)]


def test_a_disk_that_fills_up_leaves_no_half_file(tmp_path):
    def chunks():
        yield b"half"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        publish.publish_chunks(tmp_path / "big", chunks())
    assert list(tmp_path.iterdir()) == []
