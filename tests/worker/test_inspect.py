"""What a run's milestones hold inside."""

import numpy as np
import pytest
import torch

from stx import records
from stx.data import noise
from stx.data.latents import Latents, scaled
from stx.data.noise import Purpose
from stx.evaluation import components
from stx.flow.interpolant import noisy_at
from stx.worker import freeze, inspect, subject
from stx.worker.attempt import Yielded

SCIENCE = {
    "weights": "raw",
    "times": [0.2, 0.7],
    "blocks": "all",
    "num_images": 6,
    "batch": 4,
    "probe": {"num_train": 40, "num_test": 20, "ridge": 1e-3},
}
ARRAYS = ["images.npy", "noisy.npy", "pca.npy", "probes.npy"]


@pytest.fixture
def new_inspect(workshop, pipeline, as_source, sit_shape):
    def make(*, wants=(320,), teacher=None, **science):
        inputs = {"run": as_source(pipeline.run, whole=True), "latents": pipeline.latents}
        inputs |= {"autoencoder": pipeline.autoencoder, "images": pipeline.images}
        where = {"shape": sit_shape, "interpolant": "linear"}
        if teacher:
            inputs["teacher"] = teacher
            where |= {"teacher_shape": sit_shape, "guided": {"block": 1, "guidance": 5.0}}
        return workshop.attempt("inspect", science=SCIENCE | science, inputs=inputs, wants=wants, where=where)

    return make


@pytest.fixture
def teacher(workshop, pipeline, as_source, sit_shape):
    pipeline.milestone(160, seed=5)
    run = {"run": as_source(pipeline.run, images=160)}
    frozen = workshop.attempt("freeze", science={"weights": "raw"}, inputs=run, where={"shape": sit_shape})
    freeze.run(frozen)
    return as_source(frozen)


def arrays_of(attempt, images: int = 320) -> dict[str, np.ndarray]:
    folder = attempt.stage.part("inspect", images).path
    return {path.name: np.load(path) for path in sorted(folder.glob("*.npy"))}


def test_a_part_holds_pictures_probes_and_what_they_depend_on(pipeline, new_inspect) -> None:
    pipeline.milestone(320, seed=1)
    attempt = new_inspect()
    inspect.run(attempt)
    found = arrays_of(attempt)
    assert sorted(found) == ARRAYS
    assert {name: (array.shape, array.dtype.name) for name, array in found.items()} == {
        "images.npy": ((6, 32, 32, 1), "uint8"),
        "noisy.npy": ((6, 2, 32, 32, 1), "uint8"),
        "pca.npy": ((6, 2, 2, 4, 4, 3), "uint8"),
        "probes.npy": ((2, 2), "float32"),
    }
    record = records.read(attempt.stage.part("inspect", 320).path / "inspect.json")
    assert (record["times"], record["blocks"], record["guided"]) == ([0.2, 0.7], [1, 2], None)
    assert record["class_names"] == [str(digit) for digit in range(10)]
    assert record["labels"] == list(range(6)), "classes in turn"
    assert ((found["probes.npy"] >= 0) & (found["probes.npy"] <= 1)).all()


def test_the_picture_of_a_block_is_that_of_its_hidden_states_less_their_mean(
    pipeline, new_inspect, sit_of_seed
) -> None:
    pipeline.milestone(320, seed=1)
    attempt = new_inspect()
    inspect.run(attempt)
    seen = subject.subject_of(attempt).held_out
    assert len(seen.labels) == 20
    t = torch.full((20,), 0.7)
    with torch.no_grad():
        noisy = noisy_at(seen.latents, seen.noise, t, interpolant="linear")
        output = sit_of_seed(1)(noisy, t, seen.labels, taps=(1, 2))
    ours = arrays_of(attempt)["pca.npy"][:, 1]
    for place, block in enumerate((1, 2)):
        hidden = output.hidden[block].double().numpy()
        expected = components.picture((hidden - hidden.mean(axis=0))[:6]).astype(int)
        assert np.abs(ours[:, place].astype(int) - expected).max() <= 1, "chunks move the last bits only"


def test_probes_are_fitted_to_train_rows_in_their_own_noise_and_see_no_label(pipeline, new_inspect) -> None:
    attempt = new_inspect()
    train = subject.subject_of(attempt).train
    latents = Latents(pipeline.latents.path / "payload")
    chosen = subject.balanced_rows(latents.labels, 40)
    posterior, made = noise.normal_pairs(0, Purpose.INSPECT_NOISE, chosen, count=4 * 8 * 8, draw=0)
    mean, std = latents.moments(chosen)
    expected = scaled(mean, std, posterior.reshape(mean.shape), scale=latents.info.scale, shift=latents.info.shift)
    assert np.array_equal(train.latents.numpy(), expected)
    assert np.array_equal(train.noise.numpy(), made.reshape(mean.shape))
    assert np.bincount(train.labels).tolist() == [4] * 10


def test_a_label_that_the_network_was_told_is_not_what_a_probe_finds(pipeline, new_inspect, monkeypatch) -> None:
    pipeline.milestone(320, seed=1)
    seen = []
    attempt = new_inspect(num_images=1, batch=60)
    hidden = inspect.Look.hidden
    monkeypatch.setattr(inspect.Look, "hidden", lambda self, x, t, y: (seen.append(y), hidden(self, x, t, y))[1])
    inspect.run(attempt)
    told = [sorted(set(labels.tolist())) for labels in seen]
    assert told == [list(range(10))] * 2 + [[10]] * 4, "pictures know the label; probes, fitted and judged, do not"


def test_guided_features_are_there_for_a_run_with_a_teacher(pipeline, new_inspect, teacher) -> None:
    pipeline.milestone(320, seed=1)
    attempt = new_inspect(teacher=teacher)
    inspect.run(attempt)
    both = arrays_of(attempt)["guided.npy"]
    assert both.shape == (6, 2, 2, 4, 4, 3)
    assert not np.array_equal(both[:, :, 0], both[:, :, 1])
    record = records.read(attempt.stage.part("inspect", 320).path / "inspect.json")
    assert record["guided"] == {"teacher": teacher.input.key, "block": 1, "guidance": 5.0}


def test_all_runs_and_milestones_are_shown_the_same(pipeline, new_inspect) -> None:
    pipeline.milestone(320, seed=1)
    pipeline.milestone(640, seed=3)
    attempt = new_inspect(wants=(320, 640))
    inspect.run(attempt)
    first, second = arrays_of(attempt, 320), arrays_of(attempt, 640)
    for name in ("images.npy", "noisy.npy"):
        assert np.array_equal(first[name], second[name])
    assert not np.array_equal(first["pca.npy"], second["pca.npy"])


@pytest.mark.parametrize("asked", [3, 9, 20])
def test_a_stopped_attempt_keeps_its_files_and_ends_in_the_same_digest(
    pipeline, new_inspect, stop, payload_digest, teacher, asked: int
) -> None:
    pipeline.milestone(320, seed=1)
    first = new_inspect(teacher=teacher)
    stop.after(asked)
    with pytest.raises(Yielded):
        inspect.run(first)
    folder = first.stage.part("inspect", 320).path
    kept = {path.name: path.stat().st_ino for path in folder.iterdir()}
    assert "inspect.json" in kept
    stop.after(10**6)
    second = new_inspect(teacher=teacher)
    inspect.run(second)
    assert {name: (folder / name).stat().st_ino for name in kept} == kept
    resumed = payload_digest(second, images=320)
    for path in folder.iterdir():
        path.unlink()
    inspect.run(new_inspect(teacher=teacher))
    assert payload_digest(second, images=320) == resumed


def test_rows_are_chosen_class_by_class_as_far_as_a_class_has_them() -> None:
    labels = np.array([2, 0, 0, 0, 1, 0, 1])
    assert subject.balanced_rows(labels, 5).tolist() == [1, 4, 0, 2, 6]
    assert sorted(subject.balanced_rows(labels, 7).tolist()) == list(range(7))
