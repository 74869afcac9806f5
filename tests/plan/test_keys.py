"""Identity is frozen by gold: tests/golden/keys.txt holds the keys of a small experiment.

A key that moves orphans every finished result of that stage. If that is what you want, bump the kind's RECIPE (or give
the new field a neutral=) and write the file again:

    STX_WRITE_KEYS=1 python -m pytest tests/plan/test_keys.py
"""

import os
from pathlib import Path

import pytest

from stx import named
from stx.config import schema
from stx.config.alignment.base import PACKAGE as ALIGNMENTS
from stx.config.schema import Options
from stx.stages import base

GOLDEN = Path(__file__).parents[1] / "golden" / "keys.txt"


def test_keys_are_the_golden_ones(expand, small):
    lines = [f"{node.key} {node.name}" for node in expand(small + OWN).graph.nodes]
    if os.environ.get("STX_WRITE_KEYS"):
        GOLDEN.write_text("\n".join(lines) + "\n")
    assert lines == GOLDEN.read_text().splitlines()


def models():
    """Every options model there is: of kinds, of methods, and nested ones."""
    found = [named.load(base.PACKAGE, kind).Options for kind in named.names(base.PACKAGE)]
    found += [named.load(ALIGNMENTS, method).Options for method in named.names(ALIGNMENTS)]
    for model in found:
        for info in model.model_fields.values():
            inner = info.annotation
            if isinstance(inner, type) and issubclass(inner, Options) and inner not in found:
                found.append(inner)
    return [*found, schema.External]


@pytest.mark.parametrize("model", models(), ids=lambda model: f"{model.__module__}.{model.__name__}")
def test_every_option_bears_a_mark(model):
    assert {mark.name for mark in schema.marks(model)} == set(model.model_fields)


def test_every_kind_has_a_seed_that_is_science():
    for kind in named.names(base.PACKAGE):
        marks = {mark.name: mark.role for mark in schema.marks(base.kind_named(kind).options)}
        assert marks["seed"] == "science"


# one other valid value for every science option, by kind and path; None where there is but one
OTHER = {
    "images": {"source": None, "resolution": "40", "held_out": "490", "limit": "4000", "channels": None, "seed": "3"},
    "autoencoder": {
        "steps": "3",
        "batch": "3",
        "lr": "0.1",
        "channels": "[8]",
        "latent_channels": "2",
        "layers_per_block": "2",
        "mid_attention": "true",
        "kl_weight": "0.1",
        "version": None,
        "hub": None,
        "revision": None,
        "scale": None,
        "seed": "3",
    },
    "latents": {"dtype": "fp16", "batch": "32", "shard": "1024", "flips": "true", "seed": "3"},
    "classifier": {"steps": "3", "batch": "3", "lr": "0.1", "channels": "[8]", "seed": "3"},
    "train": {
        "model": "{depth: 3, width: 32, heads: 2, patch: 2}",
        "global_batch": "16",
        "precision": "bf16_weights",
        "lr": "0.1",
        "betas": "[0.5, 0.9]",
        "weight_decay": "0.1",
        "grad_clip": "2.0",
        "ema_decay": "0.5",
        "label_dropout": "0.2",
        "qk_norm": "true",
        "t_distribution": "lognormal",
        "stratified_t": "true",
        "interpolant": None,
        "order_window": "3",
        "seed": "3",
        "alignment.method": None,
        "alignment.head_block": "2",
        "alignment.window": "[0.1, 0.2]",
        "alignment.weight": "0.1",
        "alignment.window_reduction": "over_batch",
        "alignment.projector_width": "64",
        "alignment.stop_step": "10",
        "alignment.student_block": "2",
        "alignment.teacher_block": "1",
        "alignment.guidance": "7",
    },
    "freeze": {
        "weights": "ema",
        "ema_decay": None,
        "seed": "3",
        "version": None,
        "model": None,
        "qk_norm": None,
        "interpolant": None,
    },
    "features": {
        "teacher_block": "1",
        "window": "[0.1, 0.2]",
        "draws": "2",
        "dtype": "fp32",
        "t_distribution": "lognormal",
        "batch": "32",
        "shard": "1024",
        "seed": "3",
    },
    "sample": {
        "num_samples": "30",
        "labels": "random",
        "batch": "10",
        "weights": "raw",
        "ema_decay": "0.9999",
        "sampler.solver": "heun",
        "sampler.last_step": None,
        "sampler.steps": "5",
        "sampler.guidance": "2",
        "sampler.interval": "[0, 0.5]",
        "seed": "3",
    },
    "evaluate": {"metrics": "[label_accuracy]", "batch": "10", "seed": "3"},
    "inspect": {
        "weights": "raw",
        "ema_decay": "0.9999",
        "times": "[0.5]",
        "blocks": "[1]",
        "num_images": "3",
        "batch": "10",
        "probe.num_train": "30",
        "probe.num_test": "30",
        "probe.ridge": "0.1",
        "seed": "3",
    },
    "command": {"argv": "[b]", "version": "'2'", "seed": "3"},
}
STAGE = {"images": "images", "autoencoder": "vae", "latents": "latents", "classifier": "judge", "freeze": "teacher"}
STAGE |= {"features": "features", "sample": "samples", "evaluate": "scores", "inspect": "looks", "command": "own"}
OWN = "  own: {kind: command, argv: [a]}\n  looks: {kind: inspect, runs: [phase1, phase2], probe: {num_test: 400}}\n"


def science_paths(model, prefix=""):
    for mark in schema.marks(model):
        inner = model.model_fields[mark.name].annotation
        if mark.role == "science":
            yield prefix + mark.name
        elif mark.role == "group" and mark.name != "alignment":
            yield from science_paths(inner, f"{prefix}{mark.name}.")


def test_another_value_is_known_for_every_science_option():
    for kind in named.names(base.PACKAGE):
        paths = set(science_paths(base.kind_named(kind).options))
        if kind == "train":
            for method in named.names(ALIGNMENTS):
                paths |= set(science_paths(named.load(ALIGNMENTS, method).Options, "alignment."))
        assert paths == set(OTHER[kind]), kind


CASES = [(kind, path, value) for kind, options in OTHER.items() for path, value in options.items() if value is not None]


@pytest.mark.parametrize(("kind", "path", "value"), CASES, ids=[f"{kind}.{path}" for kind, path, _ in CASES])
def test_every_science_option_moves_the_key(expand, small, kind, path, value):
    student = path in ("alignment.student_block", "alignment.teacher_block", "alignment.guidance")
    stage = STAGE.get(kind) or ("phase2" if student else "phase1")
    # without a cache and one swept student, so that an option can be changed in one place
    swept = "    sweep: [{seed: 0}, {alignment.guidance: 30, seed: 0}]\n"
    text = small.replace("features: features, ", "").replace(swept, "") + OWN
    needed = ["stages.samples.sampler.guidance=3"] if path == "sampler.interval" else []
    before = expand(text, sets=needed)
    after = expand(text, sets=[*needed, f"stages.{stage}.{path}={value}"])
    name = {"samples": "samples:phase1", "scores": "scores:phase1", "looks": "looks:phase1"}.get(stage, stage)
    assert before[name].key != after[name].key
    assert before["own"].key == after["own"].key or kind == "command"


@pytest.mark.parametrize(
    "assignment",
    [
        "stages.phase1.steps=60",
        "stages.phase1.milestones=[7]",
        "stages.phase1.log_every=3",
        "stages.samples.at=last",
        "stages.vae.log_every=3",
    ],
)
def test_goals_and_where_options_do_not_move_the_key_of_their_stage(expand, assignment):
    stage = assignment.split(".")[1]
    name = {"samples": "samples:phase1"}.get(stage, stage)
    assert expand()[name].key == expand(sets=[assignment])[name].key


def test_another_interpolant_moves_every_key_that_hangs_on_a_network(expand, small):
    before, after = expand(), expand(small, ("steps: 40", "interpolant: cosine, steps: 40"))
    moved = {name for name in before.nodes if before[name].key != after[name].key}
    assert set(before.nodes) - moved == {"images", "vae", "latents", "judge"}


def test_the_last_step_of_the_sde_moves_the_key_and_its_usual_one_does_not(expand):
    def key(sampler: str) -> str:
        return expand(sets=[f"stages.samples.sampler={sampler}"])["samples:phase1"].key

    assert key("{solver: sde}") == key("{solver: sde, last_step: 0.04}") != key("{solver: sde, last_step: 0.02}")
