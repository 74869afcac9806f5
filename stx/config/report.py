"""What the report of an experiment compares: `report: {y, x, series}`. No stage, no key."""

from typing import Annotated

from pydantic import Field

from stx.config.schema import Many, Section, choice

# gpu_hours is told in core-hours where nothing was trained on a GPU.
AXES = ("images_seen", "total_compute", "gpu_hours")


class ReportOptions(Section):
    """`y` is a score, `x` the axes it is drawn against, `series` the train stages compared (none: all sampled)."""

    y: str = "frechet_distance"
    x: Annotated[Many[Annotated[str, choice(*AXES)]], Field(min_length=1)] = AXES
    series: Many[str] = ()
