"""One drawing, two renderings: PNG with its legend for report.md, and SVG for the page, where the legend is HTML and
every colour is a CSS variable of the theme.

The SVG holds text as text (the page's font), no date, and ids that start with the chart's name, so that many fit into
one page. Figures are made without pyplot: nothing is global, nothing has to be closed.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from stx.report import theme
from stx.report.words import scaled

SIZE = (5.3, 3.5)  # inches; small, so that the words are still readable on a page of 360 pixels
# The same for all, so that axes align where charts stand side by side.
MARGINS = {"left": 0.135, "right": 0.985, "bottom": 0.14, "top": 0.97}
CHARACTER_INCHES = 0.09  # of a head, on the average
PNG_DPI = 140
MAX_LEGEND = 16
STYLE: Any = {
    "figure.facecolor": theme.PAPER.light,
    "axes.facecolor": theme.PAPER.light,
    "axes.edgecolor": theme.MUTED.light,
    "axes.labelcolor": theme.INK.light,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.labelsize": 9.5,
    "font.size": 9.5,
    "grid.color": theme.GRID.light,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.7,
    "lines.markersize": 5.5,
    "text.color": theme.INK.light,
    "xtick.color": theme.MUTED.light,
    "xtick.labelcolor": theme.INK.light,
    "ytick.color": theme.MUTED.light,
    "ytick.labelcolor": theme.INK.light,
    "svg.fonttype": "none",
    "svg.hashsalt": "stx",
}


@dataclass(frozen=True)
class Key:
    """One line of a legend; `index` chooses colour and marker, and `dashed` the line."""

    label: str
    index: int
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """A figure: `name` is its file (without .png) in report/ and its id in the page, `caption` what it shows, `alt`
    the same for who cannot see it. `png` is None where only the page shows it.
    """

    name: str
    title: str
    caption: str
    alt: str
    keys: tuple[Key, ...]
    png: bytes | None
    svg: str


@contextmanager
def axes() -> Iterator[Any]:
    """A set of axes of the report's style; draw and `finish` inside the block."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE)
        figure.subplots_adjust(**MARGINS)
        yield figure.add_subplot()


def finish(
    axes: Any, *, name: str, title: str, caption: str, alt: str, keys: Sequence[Key], only_page: bool = False
) -> Chart:
    """Render it twice, or once for the page only."""
    svg = _svg(axes.get_figure(), prefix=name)
    png = None if only_page else _png(axes, keys)
    return Chart(name, title, caption, alt, tuple(keys), png, svg)


def _png(axes: Any, keys: Sequence[Key]) -> bytes:
    room = None  # measuring what a legend needs costs another drawing
    if 0 < len(keys) <= MAX_LEGEND and axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
        room = "tight"
    stream = io.BytesIO()
    axes.get_figure().savefig(stream, format="png", dpi=PNG_DPI, bbox_inches=room)
    return stream.getvalue()


def picture(
    sheet: Any,
    *,
    columns: Sequence[tuple[float, str]],
    rows: Sequence[tuple[float, str]],
    cell_inches: float,
    title: str,
) -> bytes:
    """Pixels (H, W, 3) with heads above and labels beside, at their centres, as PNG."""
    size = (cell_inches * len(columns) + 2.0, cell_inches * len(rows) + 0.8)
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=size)
        axes = figure.add_subplot()
        axes.imshow(sheet, interpolation="nearest")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labeltop=True, labelbottom=False)
        axes.set_xticks([place for place, _ in columns], [name for _, name in columns], **_slant(columns, cell_inches))
        axes.set_yticks([place for place, _ in rows], [name for _, name in rows])
        axes.set_title(title, fontsize=9.5)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=PNG_DPI, bbox_inches="tight")
    return stream.getvalue()


def _slant(columns: Sequence[tuple[float, str]], cell_inches: float) -> dict[str, Any]:
    """Heads that are wider than their cells stand aslant."""
    longest = max((len(name) for _, name in columns), default=0)
    if longest * CHARACTER_INCHES <= cell_inches:
        return {}
    return {"rotation": 35, "ha": "left", "rotation_mode": "anchor"}


def style_of(index: int) -> dict[str, Any]:
    """Colour, marker and line of the index-th series, for matplotlib."""
    return {
        "color": theme.colour_of(index).light,
        "marker": theme.MARKERS[index % len(theme.MARKERS)],
        "linestyle": theme.LINES[index // len(theme.SERIES) % len(theme.LINES)],
    }


def count_axis(axes: Any) -> None:
    """Counts on the x axis as 10 k, 2.5 M, from zero on."""
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: scaled(value, "").strip()))
    axes.set_xlim(left=0)


def lower_is_better_axis(axes: Any, values: Sequence[float]) -> None:
    """A distance: logarithmic where it spans much, else from zero on."""
    if min(values) > 0 and max(values) / min(values) > 8:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=min(0.0, *values), top=max(values) * 1.06 or 1.0)


def _svg(figure: Any, *, prefix: str) -> str:
    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    return themed(stream.getvalue(), prefix=prefix)


def themed(svg: str, *, prefix: str) -> str:
    """A drawing of matplotlib's as one element of the page: own ids, the theme's colours, as wide as its place."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1 aria-hidden="true"', svg, count=1)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    for colour in theme.ALL:
        svg = svg.replace(colour.light, f"var(--{colour.name})")
    return svg
