"""What the report of an experiment compares: `report: {y, x, series}`. No stage, no key."""

from typing import Annotated

from pydantic import Field

from stx.config.schema import Many, Section, choice


class ReportOptions(Section):
    """`y` is a score, `x` the axes it is drawn against, `series` the train stages compared (none: all sampled)."""

    y: str = "frechet_distance"
    x: Annotated[Many[Annotated[str, choice("images_seen", "total_compute")]], Field(min_length=1)] = (
        "images_seen",
        "total_compute",
    )
    series: Many[str] = ()
