"""What precision and activation checkpointing do to a run, on one rank."""

import pytest
import torch

from stx.worker import ranks as process_groups
from stx.worker import train

STEPS = 6
WANTS = (8 * STEPS,)


@pytest.fixture(autouse=True)
def fresh_deepspeed():
    """DeepSpeed remembers for its whole process that an engine used autocast; stx's workers make one engine each."""
    from deepspeed.runtime import torch_autocast

    torch_autocast.TORCH_AUTOCAST_INITIALIZED = False


@pytest.mark.parametrize(("stage", "precision"), [(1, "fp32"), (3, "bf16_autocast"), (2, "bf16_weights")])
def test_checkpointed_activations_change_no_bit_of_a_run(new_runs, made, stage, precision):
    digests = set()
    for checkpointing in (False, True):
        layout = {"zero_stage": stage, "activation_checkpointing": checkpointing}
        attempt = new_runs(str(checkpointing)).attempt(wants=WANTS, layout=layout, precision=precision)
        train.run(attempt)
        digests.add(made(attempt, *WANTS).digest)
    assert len(digests) == 1


def test_bf16_is_near_fp32_and_is_not_fp32(new_runs, made):
    losses = {}
    for precision in ("fp32", "bf16_autocast", "bf16_weights"):
        runs = new_runs(precision)
        inputs = {"alignment.teacher": runs.teacher()}
        attempt = runs.attempt(wants=WANTS, inputs=inputs, alignment=runs.guided, precision=precision)
        train.run(attempt)
        losses[precision] = [line["loss"] for line in made(attempt).metrics]
        assert any("alignment.guided_teacher" in line for line in made(attempt).metrics)
    for precision in ("bf16_autocast", "bf16_weights"):
        assert losses[precision] == pytest.approx(losses["fp32"], rel=0.01)
        assert losses[precision] != losses["fp32"]
    assert losses["bf16_autocast"] != losses["bf16_weights"]


@pytest.mark.parametrize(("precision", "weights"), [("bf16_autocast", torch.float32), ("bf16_weights", torch.bfloat16)])
def test_losses_and_masters_are_fp32_and_the_teacher_has_the_students_precision(runs, precision, weights):
    inputs = {"alignment.teacher": runs.teacher()}
    attempt = runs.attempt(wants=WANTS, inputs=inputs, alignment=runs.guided, precision=precision)
    with process_groups.process_group(attempt) as group:
        loop = train.start(attempt, group)
        with loop.loader.batches(0, until=None) as steps:
            (batch,) = next(iter(steps))
        output = loop.engine(batch)
    assert {value.dtype for value in (output.loss, *output.scalars.values())} == {torch.float32}
    assert {one.values.dtype for one in loop.partition.written()} == {torch.float32}
    module = loop.engine.module
    (teacher,) = module.alignment.held
    assert {one.dtype for net in (module, teacher) for one in net.parameters()} == {weights}
