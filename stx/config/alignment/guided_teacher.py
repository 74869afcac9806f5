"""Phase 2: regress the guided feature of a frozen teacher, f_u + guidance (f_c - f_u), from a middle block.

Without `features` the teacher runs online on the rows inside the window; with them it was run once, for all runs that
share it.
"""

from stx import sizes
from stx.config.alignment.base import AlignmentCost, Student, WindowedOptions, aligned_share, check_block
from stx.config.schema import Positive, Problem, input_, science
from stx.sizes import SitShape


class Options(WindowedOptions):
    """Blocks are 1-based; guidance 1 is the conditional feature itself."""

    teacher: str = input_("freeze")
    features: str | None = input_("features", default=None)
    student_block: Positive = science()
    teacher_block: Positive = science()
    guidance: float = science(ge=0)


def check(options: Options, *, student: Student, teacher: SitShape | None) -> list[Problem]:
    """Blocks exist, tokens and widths of student and teacher agree, and `released` has no cache."""
    assert teacher is not None, "guided_teacher declares its teacher as an input"
    found = check_block("student_block", options.student_block, student.shape, owner="student")
    found += check_block("teacher_block", options.teacher_block, teacher, owner="teacher")
    for word, mine, other in (
        ("patch", student.shape.patch, teacher.patch),
        ("width", student.shape.width, teacher.width),
    ):
        if mine != other:
            what = f"the teacher {teacher.name} has {word} {other}, the student {student.shape.name} has {mine}"
            found.append(Problem(("alignment", "teacher"), what, "this version needs both to be equal"))
    if options.features is not None and options.window_reduction == "released":
        what = "released aligns rows at every t, and the cache holds features inside the window only"
        hint = "remove features (the teacher then runs online), or choose in_window or over_batch"
        found.append(Problem(("alignment", "window_reduction"), what, hint))
    return found


def cost(options: Options, *, student: Student, teacher: SitShape | None, cached: bool) -> AlignmentCost:
    """The projector forward and backward, and both passes of the teacher unless they are cached."""
    assert teacher is not None, "guided_teacher declares its teacher as an input"
    shape, share = student.shape, aligned_share(options, student)
    tokens = sizes.num_tokens(shape, student.latent)
    projector = sizes.projector_flops(shape.width, options.projector_width, teacher.width, tokens=tokens)
    online = share * sizes.teacher_flops(teacher, student.latent, block=options.teacher_block)
    return AlignmentCost(
        flops_per_image=3.0 * projector * share + (0.0 if cached else online),
        parameters=sizes.projector_parameters(shape.width, options.projector_width, teacher.width),
        teacher_flops_per_image=online,
    )
