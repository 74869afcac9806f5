"""report/: report.md with its figures as files, and report.html, one page that needs nothing beside it.

Every file is written aside and renamed, the texts last: a reader sees the old report or the new one. The lease holder
runs this in a child with a time limit, `stx report NAME` runs it at any time, also over a half-finished experiment.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from jobs import files
from stx.paths import ExperimentDir
from stx.report import html, markdown
from stx.report.draw import draw
from stx.report.facts import Facts


@dataclass(frozen=True)
class Written:
    """Where the two texts are."""

    markdown: Path
    html: Path


def write(facts: Facts, *, experiment: ExperimentDir) -> Written:
    """Draw and write both; figures of an earlier report that this one has not are removed."""
    folder = experiment.report
    files.make_dir(folder)
    written = Written(markdown=folder / "report.md", html=folder / "report.html")
    drawn = draw(facts)
    pngs = drawn.pngs()
    for name, png in pngs.items():
        files.write(folder / name, png)
    files.write(written.html, html.page(facts, drawn).encode())
    files.write(written.markdown, markdown.text(facts, drawn).encode())
    for stale in folder.glob("*.png"):
        if stale.name not in pngs:
            with contextlib.suppress(FileNotFoundError):
                stale.unlink()
    return written
