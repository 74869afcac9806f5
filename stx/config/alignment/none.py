"""No alignment: the plain diffusion loss."""

from stx.config.alignment.base import AlignmentCost, AlignmentOptions, Student
from stx.config.schema import Problem
from stx.sizes import SitShape


class Options(AlignmentOptions):
    """Nothing to choose."""


def check(options: Options, *, student: Student, teacher: SitShape | None) -> list[Problem]:
    """Nothing to refuse."""
    return []


def cost(options: Options, *, student: Student, teacher: SitShape | None, cached: bool) -> AlignmentCost:
    """Nothing."""
    return AlignmentCost(flops_per_image=0.0, parameters=0)
