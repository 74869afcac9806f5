"""Phase 1: a head on a shallow block must already predict the velocity (the paper's VAE structure guidance)."""

from stx import sizes
from stx.config.alignment.base import AlignmentCost, Student, WindowedOptions, aligned_share, check_block
from stx.config.schema import Positive, Problem, science
from stx.sizes import SitShape


class Options(WindowedOptions):
    """The head sits on the residual stream after block `head_block`, 1-based."""

    head_block: Positive = science()


def check(options: Options, *, student: Student, teacher: SitShape | None) -> list[Problem]:
    """The head's block is one of the student's."""
    return check_block("head_block", options.head_block, student.shape, owner="student")


def cost(options: Options, *, student: Student, teacher: SitShape | None, cached: bool) -> AlignmentCost:
    """A three-layer projector and a linear layer to patches, forward and backward on the aligned rows."""
    shape, latent, hidden = student.shape, student.latent, options.projector_width
    tokens, patch_width = sizes.num_tokens(shape, latent), shape.patch**2 * latent.channels
    forward = sizes.projector_flops(shape.width, hidden, shape.width, tokens=tokens)
    forward += 2.0 * tokens * shape.width * patch_width
    parameters = sizes.projector_parameters(shape.width, hidden, shape.width) + (shape.width + 1) * patch_width
    return AlignmentCost(flops_per_image=3.0 * forward * aligned_share(options, student), parameters=parameters)
