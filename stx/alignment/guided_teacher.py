"""Phase 2 of Self-Transcendence (arXiv 2601.07773): a new student regresses guided features of a frozen one.

    f_c = h^G_kt(x_t, t, label)    f_u = h^G_kt(x_t, t, null)         kt = teacher_block of the teacher G
    Z = f_u + guidance (f_c - f_u)
    guided_teacher = weight * R(mean_{T,D} (P(h_ks) - Z)^2)           ks = student_block, P = projector
                                                                      R = window_reduction, see base.py

The teacher sees the student's x_t and t, but always the TRUE label: label dropout is the student's. Z is computed in
fp32 and not normalised; at guidance 30 it is several times larger than a hidden state, so its mean square and the
cosine of f_c and f_u are logged.

The features come from the teacher, which then runs on the aligned rows only, both passes as one batch, no further
than its block; or from a cache of f_u and f_c - f_u, one for every guidance of a sweep. Either way the target is the
same sum of the same two numbers.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from stx.alignment.base import AlignmentOutput, aligned_count, aligned_rows, window_term
from stx.data.loader import Batch
from stx.errors import ConfigError
from stx.flow.interpolant import noisy_at
from stx.flow.objective import diffusion_loss
from stx.model import blocks
from stx.model.sit import SiT
from stx.sizes import SitShape


class TeacherFeatures(NamedTuple):
    """f_u and f_c - f_u, each (R, T, D) in fp32."""

    unconditional: Tensor
    difference: Tensor


@torch.no_grad()
def teacher_features(teacher: SiT, noisy: Tensor, t: Tensor, labels: Tensor, *, block: int) -> TeacherFeatures:
    """noisy (R, C, H, W), t (R,), true labels (R,): one batch of 2R rows through the teacher's first `block` blocks."""
    null_labels = torch.full_like(labels, teacher.null_label)
    both = (torch.cat([noisy, noisy]), torch.cat([t, t]), torch.cat([labels, null_labels]))
    hidden = teacher(*both, taps=(block,), stop_block=block).hidden[block]
    # The difference is taken in fp32 before any rounding: at guidance 30 the rounding of f_c and of f_u would count
    # 59 times.
    conditional, unconditional = hidden.float().chunk(2)
    return TeacherFeatures(unconditional=unconditional, difference=conditional - unconditional)


def guided_target(features: TeacherFeatures, *, guidance: float) -> Tensor:
    """Z (R, T, D) in fp32: f_c at guidance 1, f_u at 0."""
    return features.unconditional.float() + guidance * features.difference.float()


class GuidedTeacher(nn.Module):
    """The projector, the teacher held aside, and their term. `teacher` None means that batches bring the features."""

    def __init__(
        self,
        shape: SitShape,
        *,
        teacher: SiT | None,
        feature_width: int,
        student_block: int,
        teacher_block: int,
        guidance: float,
        projector_width: int,
        weight: float,
        window_reduction: str,
        interpolant: str,
    ) -> None:
        super().__init__()
        self.taps = (student_block,)
        self.teacher_block = teacher_block
        self.guidance = guidance
        self.weight = weight
        self.window_reduction = window_reduction
        self.interpolant = interpolant
        self.projector = blocks.projector(shape.width, hidden=projector_width, out=feature_width)
        # In a tuple, so that it is no submodule: not trained, not saved, not averaged, and .train() does not reach it.
        self.held = (teacher,)

    def features(self, batch: Batch, rows: Tensor | slice) -> TeacherFeatures:
        """Of the aligned rows: from the batch, or from the teacher."""
        (teacher,) = self.held
        if teacher is None:
            return TeacherFeatures(batch.features.unconditional, batch.features.difference)
        t = batch.t[rows]
        noisy = noisy_at(batch.latents[rows], batch.noise[rows], t, interpolant=self.interpolant)
        return teacher_features(teacher, noisy, t, batch.labels[rows], block=self.teacher_block)

    def forward(self, batch: Batch, hidden: Mapping[int, Tensor]) -> AlignmentOutput:
        """hidden {student_block: (B, T, D)}."""
        if self.weight == 0 or batch.window_rows == 0:
            return AlignmentOutput(terms={}, numbers={})
        rows = aligned_rows(batch, window_reduction=self.window_reduction)
        features = self.features(batch, rows)
        target = guided_target(features, guidance=self.guidance)
        losses = diffusion_loss(self.projector(hidden[self.taps[0]][rows]), target)
        term = window_term(losses, batch, window_reduction=self.window_reduction, weight=self.weight)
        count = aligned_count(batch, window_reduction=self.window_reduction)
        return AlignmentOutput(terms={"guided_teacher": term}, numbers=numbers(features, target, count=count))

    def after_step(self, step: int) -> None:
        """The teacher follows nothing: it is frozen."""


@torch.no_grad()
def numbers(features: TeacherFeatures, target: Tensor, *, count: int) -> dict[str, Tensor]:
    """Mean square of Z and cosine of f_c and f_u, this micro-batch's part of the means over `count` aligned rows."""
    unconditional = features.unconditional.float()
    cosines = cosine_similarity(unconditional + features.difference.float(), unconditional, dim=2).mean(1)
    squares = target.square().mean((1, 2))
    return {"target_mean_square": squares.sum() / count, "guidance_cosine": cosines.sum() / count}


def build(
    options: Mapping[str, Any],
    *,
    shape: SitShape,
    in_channels: int,
    input_size: int,
    num_classes: int,
    interpolant: str,
    teacher: SiT | None = None,
    feature_width: int | None = None,
) -> GuidedTeacher:
    """From the options of stx/config/alignment/guided_teacher.py; online with `teacher`, cached with `feature_width`.

    The teacher comes with its weights and on its device, and is frozen here.
    """
    assert (teacher is None) != (feature_width is None), "guided_teacher takes a teacher or a cache, and not both"
    if teacher is None and options["window_reduction"] == "released":
        raise ConfigError(
            "window_reduction released needs the teacher on all rows, and a feature cache has those in the window only",
            hint="leave out `features`, or use in_window or over_batch",
        )
    if teacher is not None:
        teacher.eval().requires_grad_(False)
        feature_width = teacher.shape.width
    return GuidedTeacher(
        shape,
        teacher=teacher,
        feature_width=feature_width,
        student_block=options["student_block"],
        teacher_block=options["teacher_block"],
        guidance=options["guidance"],
        projector_width=options["projector_width"],
        weight=options["weight"],
        window_reduction=options["window_reduction"],
        interpolant=interpolant,
    )
