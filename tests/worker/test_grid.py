"""A grid of images from a milestone."""

import json

import numpy as np
import pytest
from PIL import Image

from stx.worker import entry, grid, sample

PROTOCOL = {"weights": "ema", "seed": 5, "solver": "euler", "steps": 3, "guidance": 1.0, "interval": [0.0, 1.0]}


@pytest.fixture
def request_for(pipeline, sit_shape, tmp_path):
    def make(**protocol):
        pipeline.milestone(320, seed=1)
        return {
            "milestone": str(pipeline.run.stage.part("train", 320).path),
            "autoencoder": str(pipeline.autoencoder.path),
            "shape": sit_shape,
            "interpolant": "linear",
            "columns": 4,
            "output": str(tmp_path / "grid.png"),
            "protocol": PROTOCOL | {"labels": list(range(8))} | protocol,
        }

    return make


def test_it_shows_the_images_that_a_sample_stage_makes(request_for, pipeline, workshop, as_source) -> None:
    request = request_for()
    grid.make(request)
    with Image.open(request["output"]) as picture:
        shown = np.asarray(picture)
        told = json.loads(picture.text["stx"])
    science = {"num_samples": 8, "labels": "balanced", "batch": 8, "weights": "ema", "seed": 5}
    science["sampler"] = {name: PROTOCOL[name] for name in ("solver", "steps", "guidance", "interval")}
    inputs = {"run": as_source(pipeline.run, whole=True), "latents": pipeline.latents}
    inputs |= {"autoencoder": pipeline.autoencoder}
    where = {"shape": request["shape"], "interpolant": "linear"}
    attempt = workshop.attempt("sample", science=science, inputs=inputs, wants=(320,), where=where)
    sample.run(attempt)
    made = np.load(attempt.stage.part("sample", 320).path / "samples-00000.npy")
    assert np.array_equal(shown, grid.laid_out(made, columns=4))
    assert told == request["protocol"]


def test_the_label_is_the_one_that_was_asked_for(request_for) -> None:
    shown = []
    for labels in ([3, 7], [3, 2]):
        request = request_for(labels=labels, guidance=4.0)
        grid.make(request)
        with Image.open(request["output"]) as picture:
            shown.append(np.asarray(picture))
    first, second = shown
    tile = slice(grid.GAP, grid.GAP + 64), slice(grid.GAP, grid.GAP + 64)
    assert np.array_equal(first[tile], second[tile])
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_stand_row_by_row_enlarged_and_apart(channels: int) -> None:
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, channels), np.uint8)
    made = grid.laid_out(images, columns=3)
    assert made.shape == (2 * 64 + 3 * grid.GAP, 3 * 64 + 4 * grid.GAP) + ((3,) if channels == 3 else ())
    step = 64 + grid.GAP
    for place in range(5):
        row, column = divmod(place, 3)
        assert (made[row * step + grid.GAP :, column * step + grid.GAP :][:64, :64] == place).all()
    assert (made[step:, 2 * step :] == 255).all(), "the empty place is white"


def test_a_damaged_milestone_is_one_json_object_and_no_picture(request_for, pipeline, tmp_path, capsys) -> None:
    request = request_for()
    weights = pipeline.run.stage.part("train", 320).path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert entry.sample(json.dumps(request)) == 3
    said = json.loads(capsys.readouterr().out)
    assert (said["exit_code"], said["where"]) == (3, str(weights))
    assert not (tmp_path / "grid.png").exists()
