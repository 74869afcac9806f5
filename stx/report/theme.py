"""The report's colours, each for light and for dark paper. Figures are drawn in the light ones; the page replaces every
one of them by its CSS variable, so that one drawing serves both (stx/report/canvas.py, templates/report.css).

Eight series colours (after Okabe and Ito, darkened until each stands out from white by 3:1 at least, and lightened the
same way for dark paper) with seven markers: neighbours differ in both, so neither colour-blindness nor grey paper
hides who is who.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Colour:
    """A CSS variable `--name` and its two values."""

    name: str
    light: str
    dark: str


PAPER = Colour("paper", "#ffffff", "#14171c")
PANEL = Colour("panel", "#f5f7f9", "#1c2128")
INK = Colour("ink", "#1d2530", "#e6eaf0")
MUTED = Colour("muted", "#5b6675", "#9aa6b5")
GRID = Colour("grid", "#dfe4ea", "#303845")
SERIES = (
    Colour("series-1", "#0b63b0", "#62b0f4"),
    Colour("series-2", "#c8470f", "#ff8f5e"),
    Colour("series-3", "#0a7d59", "#3fcf9f"),
    Colour("series-4", "#8f4aa6", "#d494ea"),
    Colour("series-5", "#9a6a00", "#f0bd45"),
    Colour("series-6", "#0e8296", "#55d0e2"),
    Colour("series-7", "#c12f6d", "#ff86b4"),
    Colour("series-8", "#4a4f57", "#c3c9d2"),
)
DONE = Colour("done", "#1a7f4b", "#45c483")
LIVE = Colour("live", "#1565c0", "#6db3f8")
FAILED = Colour("failed", "#c62828", "#ff7b72")
OPEN = Colour("open", "#8a94a3", "#6b7685")
ALL = (PAPER, PANEL, INK, MUTED, GRID, *SERIES, DONE, LIVE, FAILED, OPEN)

# matplotlib's names; the page's legend draws the same shapes (templates/macros.html.j2).
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", (0, (5, 2)), (0, (1, 1.5)))


def colour_of(index: int) -> Colour:
    """The colour of the index-th series."""
    return SERIES[index % len(SERIES)]


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio of two #rrggbb colours, 1 to 21."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
