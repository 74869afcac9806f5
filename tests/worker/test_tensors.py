import pytest
import safetensors.torch
import torch

from jobs import files
from stx.errors import DataError
from stx.worker import tensors


def some_tensors():
    return {
        "b": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "a": torch.tensor([1, 2, 3], dtype=torch.uint8),
        "c": torch.tensor(7, dtype=torch.int64),
        "empty": torch.zeros(0, 4),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "cut": torch.arange(12, dtype=torch.float32).reshape(3, 4).t(),
    }


def test_written_tensors_are_read_back_by_any_safetensors_reader(tmp_path):
    path = tmp_path / "x.safetensors"
    files.write(path, b"".join(tensors.chunks(some_tensors(), about="test")))
    for read in (tensors.read(path), safetensors.torch.load_file(path)):
        assert read.keys() == some_tensors().keys()
        assert all(torch.equal(read[name], value) for name, value in some_tensors().items())


def test_equal_tensors_give_equal_bytes_in_any_order():
    forward, backward = some_tensors(), dict(reversed(some_tensors().items()))
    assert b"".join(tensors.chunks(forward)) == b"".join(tensors.chunks(backward))


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(DataError, match=r"x\.safetensors"):
        tensors.read(path)
