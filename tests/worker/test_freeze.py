"""A teacher out of a run's milestone, or out of a file of the user's."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stx import records
from stx.errors import DataError
from stx.model.blocks import initialised
from stx.model.sit import SiT
from stx.paths import PartDir
from stx.sizes import SitShape
from stx.worker import freeze, publish, sit_weights, tensors

MODEL = {"depth": 2, "width": 32, "heads": 2, "patch": 2}
SHAPE = {**MODEL, "in_channels": 4, "input_size": 8, "num_classes": 10, "qk_norm": False}


def fresh(seed: int) -> SiT:
    model = initialised(lambda: SiT(SitShape(**MODEL), in_channels=4, input_size=8, num_classes=10), seed=seed)
    # A fresh SiT predicts zero; one that was trained does not.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.nn.init.normal_(model.final_layer.linear.weight, std=0.1)
    return model


def run_with_milestone(workshop, *, images: int = 320):
    attempt = workshop.attempt("train", science={"model": MODEL})
    weights = {f"raw.model.{name}": value for name, value in fresh(1).state_dict().items()}
    weights |= {f"ema.model.{name}": value for name, value in fresh(2).state_dict().items()}
    weights["raw.alignment.head.weight"] = torch.zeros(3)
    part = attempt.stage.part("train", images)
    digest = publish.publish_chunks(part.path / "weights.safetensors", tensors.chunks(weights))
    publish.finish(attempt, part, names={"weights.safetensors": digest}, images=images, info={})
    return attempt


def freeze_run(workshop, as_source, run, *, weights: str = "raw", shape=SHAPE):
    inputs = {"run": as_source(run, images=320)}
    return workshop.attempt("freeze", science={"weights": weights}, inputs=inputs, where={"shape": shape})


def freeze_file(workshop, path: Path, *, model=MODEL):
    science = {"version": "one", "model": model, "qk_norm": False}
    return workshop.attempt("freeze", science=science, where={"checkpoint": str(path)})


@pytest.mark.parametrize(("weights", "seed"), [("raw", 1), ("ema", 2)])
def test_the_teacher_is_the_milestone_that_was_named(workshop, as_source, weights: str, seed: int) -> None:
    run = run_with_milestone(workshop)
    attempt = freeze_run(workshop, as_source, run, weights=weights)
    freeze.run(attempt)
    teacher = sit_weights.load_teacher(attempt.stage.payload, shape=SHAPE)
    expected = fresh(seed).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in teacher.state_dict().items())
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    about = json.loads((attempt.stage.payload / "teacher.json").read_text())
    assert about == {"shape": SHAPE, "from": {"run": run.key, "images": 320, "weights": weights}}


def test_a_teacher_with_a_changed_byte_is_named_and_not_asked(workshop, as_source) -> None:
    attempt = freeze_run(workshop, as_source, run_with_milestone(workshop))
    freeze.run(attempt)
    path = attempt.stage.payload / sit_weights.TEACHER_FILE
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"teacher\.safetensors\n  damaged"):
        sit_weights.load_teacher(path.parent, shape=SHAPE)


def test_two_freezes_leave_equal_digests(workshop, as_source, payload_digest) -> None:
    run = run_with_milestone(workshop)
    first = freeze_run(workshop, as_source, run)
    freeze.run(first)
    before = payload_digest(first)
    for file in (first.stage.result.artifact, *first.stage.payload.iterdir()):
        file.unlink()
    freeze.run(freeze_run(workshop, as_source, run))
    assert payload_digest(first) == before


def test_a_damaged_milestone_is_named(workshop, as_source) -> None:
    run = run_with_milestone(workshop)
    file = run.stage.part("train", 320).path / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"320/weights\.safetensors[\s\S]*damaged"):
        freeze.run(freeze_run(workshop, as_source, run))


def test_a_milestone_of_another_shape_is_refused(workshop, as_source) -> None:
    run = run_with_milestone(workshop)
    with pytest.raises(DataError, match="missing in the weights"):
        freeze.run(freeze_run(workshop, as_source, run, shape={**SHAPE, "depth": 3}))


def test_weights_that_are_not_finite_make_no_teacher(workshop, tmp_path: Path) -> None:
    weights = fresh(1).state_dict()
    weights["blocks.1.mlp.fc1.bias"] = weights["blocks.1.mlp.fc1.bias"] + torch.inf
    weights["blocks.1.adaLN_modulation.1.bias"] = weights["blocks.1.adaLN_modulation.1.bias"] + 1.0
    save_file(weights, tmp_path / "bad.safetensors")
    attempt = freeze_file(workshop, tmp_path / "bad.safetensors")
    with pytest.raises(DataError, match="not finite"):
        freeze.run(attempt)
    assert not attempt.stage.result.artifact.exists()


def test_a_file_of_the_users_becomes_a_teacher_of_any_latent_size(workshop, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(fresh(1).state_dict(), path)
    attempt = freeze_file(workshop, path)
    freeze.run(attempt)
    for input_size in (8, 16):
        teacher = sit_weights.load_teacher(attempt.stage.payload, shape={**SHAPE, "input_size": input_size})
        assert teacher.pos_embed.shape[1] == (input_size // 2) ** 2
    about = records.read(attempt.stage.payload / "teacher.json")
    assert about["from"] == {"version": "one", "sha256": records.file_digest(path)}


def test_a_teacher_of_another_shape_than_planned_is_refused(workshop, tmp_path: Path) -> None:
    save_file(fresh(1).state_dict(), tmp_path / "mine.safetensors")
    attempt = freeze_file(workshop, tmp_path / "mine.safetensors")
    freeze.run(attempt)
    with pytest.raises(DataError, match="the plan wants"):
        sit_weights.load_teacher(attempt.stage.payload, shape={**SHAPE, "heads": 4})


def test_a_file_that_changed_is_refused(workshop, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(fresh(1).state_dict(), path)
    freeze.run(freeze_file(workshop, path))
    save_file(fresh(2).state_dict(), path)
    with pytest.raises(DataError, match="changed"):
        freeze.run(freeze_file(workshop, path))


@pytest.mark.parametrize("name", ["mine.pt", "mine.pth", "mine.ckpt", "mine.bin"])
def test_a_pickle_is_refused_unopened(workshop, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch /tmp/opened'\ntR.")
    with pytest.raises(DataError, match=r"is a pickle[\s\S]*save_file"):
        freeze.run(freeze_file(workshop, tmp_path / name))


def test_a_pickle_under_a_false_name_is_not_opened_either(workshop, tmp_path: Path) -> None:
    torch.save(fresh(1).state_dict(), tmp_path / "mine.safetensors")
    with pytest.raises(DataError, match="this is a zip file"):
        freeze.run(freeze_file(workshop, tmp_path / "mine.safetensors"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: {f"module.{name}": value for name, value in weights.items()}, "not the weights of a SiT"),
        (lambda weights: weights | {"projectors.0.weight": torch.zeros(2)}, r"unexpected.*projectors\.0\.weight"),
        (
            lambda weights: {name: value for name, value in weights.items() if "blocks.1" not in name},
            r"missing.*blocks\.1",
        ),
    ],
)
def test_names_are_strict_and_listed(workshop, tmp_path: Path, change, message: str) -> None:
    save_file(change(fresh(1).state_dict()), tmp_path / "mine.safetensors")
    with pytest.raises(DataError, match=message):
        freeze.run(freeze_file(workshop, tmp_path / "mine.safetensors"))


def test_a_part_lists_its_files(workshop) -> None:
    run = run_with_milestone(workshop)
    part = PartDir(run.stage.part("train", 320).path)
    assert sit_weights.milestone_weights(part, section="ema").keys() == fresh(2).state_dict().keys()
    with pytest.raises(DataError, match=r"no parameter is named other\.model"):
        sit_weights.milestone_weights(part, section="other")
