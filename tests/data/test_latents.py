import numpy as np
import pytest
import torch

from stx import records
from stx.data import noise
from stx.data.latents import Latents, LatentsInfo, publish_latents, scaled, unscaled
from stx.data.noise import Purpose
from stx.errors import DataError


def test_moments_are_read_as_they_were_written(latents_folder):
    expected = noise.normals(1, Purpose.SAMPLE_NOISE, np.arange(21), count=64).reshape(21, 2, 2, 4, 4)
    wanted = [20, 0, 8, 8]
    mean, std = latents_folder.moments(wanted)
    assert np.array_equal(mean, expected[wanted, 0])
    assert np.array_equal(std, np.abs(expected[wanted, 1]))
    assert latents_folder.labels.tolist() == [i % 5 for i in range(21)]
    assert latents_folder.shape == (2, 4, 4)
    latents_folder.verify()


def test_half_precision_is_read_as_float32(build_latents, latents_folder, tmp_path):
    halves = build_latents(tmp_path, dtype="fp16")
    mean, std = halves.moments(range(21))
    assert mean.dtype == std.dtype == np.float32
    np.testing.assert_allclose(mean, latents_folder.moments(range(21))[0], rtol=1e-3, atol=1e-6)
    assert np.array_equal(mean, mean.astype(np.float16))


def test_info_survives_its_record(latents_folder, tmp_path):
    path = tmp_path / "latents.json"
    records.write(path, latents_folder.info.dump())
    assert LatentsInfo.parse(records.read(path)) == latents_folder.info


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_scale_and_shift_go_there_and_back(kind):
    mean, std, drawn = (kind([[0.5, -2.0]]), kind([[0.1, 0.0]]), kind([[1.0, 3.0]]))
    latents = scaled(mean, std, drawn, scale=0.5, shift=0.25)
    assert latents.tolist() == [[pytest.approx(0.175), pytest.approx(-1.125)]]
    assert unscaled(latents, scale=0.5, shift=0.25).tolist() == [[pytest.approx(0.6), pytest.approx(-2.0)]]


def test_numpy_and_torch_scale_to_equal_bits(latents_folder):
    mean, std = latents_folder.moments(range(21))
    drawn = noise.normals(3, Purpose.SAMPLE_NOISE, np.arange(21), count=32).reshape(mean.shape)
    at = {"scale": 0.18215, "shift": 0.0609}
    tensors = (torch.from_numpy(np.ascontiguousarray(value)) for value in (mean, std, drawn))
    assert np.array_equal(scaled(mean, std, drawn, **at), scaled(*tensors, **at).numpy())


def test_a_folder_opens_again(latents_folder, build_latents, tmp_path):
    build_latents(tmp_path)
    assert Latents(tmp_path).info == latents_folder.info


@pytest.mark.parametrize(("value", "dtype"), [(np.nan, "fp32"), (1e5, "fp16")])
def test_moments_that_are_not_finite_as_stored_are_refused(tmp_path, value, dtype):
    mean = np.zeros((3, 1, 2, 2), dtype=np.float32)
    mean[1, 0, 0, 0] = value
    with pytest.raises(DataError, match="sample 11 are not finite"):
        publish_latents(tmp_path, 0, first=10, mean=mean, std=np.ones_like(mean), labels=[0, 1, 2], dtype=dtype)
    assert list(tmp_path.iterdir()) == []
