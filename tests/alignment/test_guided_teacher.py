"""Phase 2: a student regresses the guided features of a frozen teacher, which is asked for no more than it must be."""

from dataclasses import replace

import pytest
import torch

from stx.alignment.guided_teacher import TeacherFeatures, guided_target, teacher_features
from stx.data.loader import CachedFeatures
from stx.errors import ConfigError, DataError
from stx.flow.interpolant import noisy_at
from stx.model.sit import load_weights


class Watch:
    """What a model was asked: the labels of each pass, and the blocks that ran."""

    def __init__(self, model) -> None:
        self.labels, self.blocks = [], []
        model.y_embedder.register_forward_pre_hook(lambda _, inputs: self.labels.append(inputs[0].tolist()))
        for index, block in enumerate(model.blocks, start=1):
            block.register_forward_pre_hook(lambda *_, index=index: self.blocks.append(index))
        model.final_layer.register_forward_pre_hook(lambda *_: self.blocks.append("final"))


def features_of(teacher, batch, *, dtype=torch.float32) -> CachedFeatures:
    """The features of the rows inside the window as a cache of `dtype` gives them back."""
    rows = batch.in_window
    noisy = noisy_at(batch.latents, batch.noise, batch.t, interpolant="linear")
    features = teacher_features(teacher, noisy[rows], batch.t[rows], batch.labels[rows], block=3)
    return CachedFeatures(*(part.to(dtype).float() for part in features))


def test_teacher_sees_the_rows_inside_only_with_true_and_null_labels_up_to_its_block(awake, alignment, batch, hidden):
    teacher, rows = awake(99), batch()
    watch = Watch(teacher)
    alignment("guided_teacher", teacher=teacher)(rows, hidden(awake(1), rows, (2,)))
    inside = rows.labels[rows.in_window].tolist()
    assert inside == [1, 3, 5]
    assert rows.dropped_labels[1] == 10, "the student must have lost a label that the teacher sees"
    assert watch.labels == [[*inside, 10, 10, 10]]
    assert watch.blocks == [1, 2, 3]


def test_null_label_is_the_number_of_classes_of_the_teacher(awake):
    teacher = awake(99)
    teacher.null_label = 4
    watch = Watch(teacher)
    teacher_features(teacher, torch.zeros(2, 4, 8, 8), torch.ones(2), torch.tensor([1, 2]), block=1)
    assert watch.labels == [[1, 2, 4, 4]]


def test_released_asks_the_teacher_for_all_rows(awake, alignment, batch, hidden):
    teacher = awake(99)
    watch = Watch(teacher)
    method = alignment("guided_teacher", teacher=teacher, window_reduction="released")
    method(batch(), hidden(awake(1), batch(), (2,)))
    assert len(watch.labels[0]) == 16


@pytest.mark.parametrize("case", ["weight 0", "no rows inside or past the stop step"])
def test_teacher_is_not_called_when_its_features_count_for_nothing(case, awake, alignment, batch):
    teacher, rows = awake(99), batch()
    watch = Watch(teacher)
    if case == "weight 0":
        output = alignment("guided_teacher", teacher=teacher, weight=0.0)(rows, {})
    else:
        stopped = replace(rows, in_window=torch.zeros(8, dtype=torch.bool), window_rows=0)
        output = alignment("guided_teacher", teacher=teacher)(stopped, {})
    assert output.terms == {}
    assert watch.blocks == []


def test_guidance_1_is_the_conditional_and_guidance_0_the_unconditional_feature(awake, batch):
    teacher, rows = awake(99), batch()
    noisy = noisy_at(rows.latents, rows.noise, rows.t, interpolant="linear")
    features = teacher_features(teacher, noisy, rows.t, rows.labels, block=3)
    conditional = teacher(noisy, rows.t, rows.labels, taps=(3,)).hidden[3]
    unconditional = teacher(noisy, rows.t, torch.full_like(rows.labels, 10), taps=(3,)).hidden[3]
    torch.testing.assert_close(guided_target(features, guidance=1), conditional, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(guided_target(features, guidance=0), unconditional, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(conditional, unconditional, atol=0.1), "a label must matter, or nothing is tested"


def test_term_is_the_error_of_the_projected_state_over_the_rows_inside(awake, alignment, batch, hidden):
    teacher, rows = awake(99), batch()
    method = alignment("guided_teacher", teacher=teacher, guidance=30.0)
    states = hidden(awake(1), rows, (2,))
    noisy = noisy_at(rows.latents, rows.noise, rows.t, interpolant="linear")
    conditional = teacher(noisy, rows.t, rows.labels, taps=(3,)).hidden[3]
    unconditional = teacher(noisy, rows.t, torch.full_like(rows.labels, 10), taps=(3,)).hidden[3]
    target = unconditional + 30 * (conditional - unconditional)
    losses = (method.projector(states[2]) - target).square().mean((1, 2))
    output = method(rows, states)
    torch.testing.assert_close(output.terms["guided_teacher"], 0.5 * losses[rows.in_window].mean())
    square = target[rows.in_window].square().mean()
    torch.testing.assert_close(output.numbers["target_mean_square"], square)
    cosine = torch.cosine_similarity(conditional, unconditional, dim=2)[rows.in_window].mean()
    torch.testing.assert_close(output.numbers["guidance_cosine"], cosine)


def test_target_is_fp32_whatever_the_features_are():
    features = TeacherFeatures(*torch.ones(2, 1, 4, 8, dtype=torch.bfloat16))
    assert guided_target(features, guidance=30.0).dtype == torch.float32


@pytest.mark.parametrize("guidance", [1.0, 5.0, 30.0])
@pytest.mark.parametrize("reduction", ["in_window", "over_batch"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-4)])
def test_cache_and_teacher_give_the_same_loss(guidance, reduction, dtype, tolerance, awake, alignment, batch, hidden):
    # 10,240 feature values inside the window: the rounding of bf16 averages out, as it does not over one or two rows.
    teacher, rows = awake(99), batch([(row + 0.5) / 64 for row in range(64)])
    states = hidden(awake(1), rows, (2,))
    changes = {"guidance": guidance, "window_reduction": reduction}
    online = alignment("guided_teacher", teacher=teacher, **changes)(rows, states).terms
    cached = alignment("guided_teacher", feature_width=32, **changes)
    with_features = replace(rows, features=features_of(teacher, rows, dtype=dtype))
    from_cache = cached(with_features, states).terms
    assert from_cache["guided_teacher"].item() == pytest.approx(online["guided_teacher"].item(), rel=tolerance)


def test_frozen_teacher_is_no_part_of_the_module_and_is_unchanged_after_a_step(awake, alignment, batch, hidden):
    teacher, student = awake(99), awake(1)
    method = alignment("guided_teacher", teacher=teacher)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    assert {name.split(".")[0] for name, _ in method.named_parameters()} == {"projector"}
    assert set(method.state_dict()) == {name for name, _ in method.named_parameters()}
    assert teacher not in list(method.modules())

    method.train()
    optimizer = torch.optim.AdamW([*student.parameters(), *method.parameters()], lr=0.1)
    method(batch(), hidden(student, batch(), (2,))).terms["guided_teacher"].backward()
    optimizer.step()
    assert not teacher.training
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


def test_gradient_reaches_the_blocks_up_to_the_students_and_no_further(awake, alignment, batch, hidden):
    student, method = awake(1), alignment("guided_teacher")
    method(batch(), hidden(student, batch(), (2,))).terms["guided_teacher"].backward()
    reached = {name for name, parameter in student.named_parameters() if parameter.grad is not None}
    expected = ("x_embedder", "t_embedder", "y_embedder", "blocks.0", "blocks.1")
    assert reached == {name for name, _ in student.named_parameters() if name.startswith(expected)}


def test_released_with_a_cache_is_refused(alignment):
    with pytest.raises(ConfigError, match="released"):
        alignment("guided_teacher", feature_width=32, window_reduction="released")


def test_phase_1_hands_its_sit_over_and_its_head_is_named_when_it_is_not_left_behind(awake, sit, alignment):
    trained, head = awake(5), alignment("velocity_head")
    teacher = sit(6)
    load_weights(teacher, trained.state_dict(), where="teacher.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), trained.parameters(), strict=True))
    with pytest.raises(DataError, match=r"unexpected.*alignment\.linear\.bias"):
        alien = trained.state_dict() | {f"alignment.{name}": value for name, value in head.state_dict().items()}
        load_weights(sit(6), alien, where="teacher.safetensors")


def test_it_works_on_the_meta_device(sit, alignment, batch, hidden):
    on_meta = {name: value.to("meta") for name, value in vars(batch()).items() if isinstance(value, torch.Tensor)}
    rows = replace(batch(), **on_meta)
    with torch.device("meta"):
        student, method = sit(0), alignment("guided_teacher", teacher=sit(1), window_reduction="released")
        output = method(rows, hidden(student, rows, (2,)))
    assert output.terms["guided_teacher"].shape == ()
