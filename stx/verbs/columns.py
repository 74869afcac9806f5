"""Tables in aligned columns that fit a width: columns that may go are dropped, names are cut in the middle. Pure.

A row of the result is its text and the name of its colour; who prints it decides whether there are colours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

GAP = 2
SMALLEST_NAME = 12  # the first column is cut down to this
SMALLEST_REST = 16  # and the last one, if it holds words, down to this
CUT = "..."


@dataclass(frozen=True)
class Row:
    """One line of a terminal."""

    text: str
    style: str = ""


def cut(text: str, width: int) -> str:
    """The head of a text that is too long."""
    return text if len(text) <= width else text[: max(0, width - len(CUT))] + CUT[:width]


def cut_middle(text: str, width: int) -> str:
    """Head and tail of a name that is too long: the points of a sweep differ at their ends."""
    if len(text) <= width:
        return text
    kept = max(0, width - len(CUT))
    return text[: kept - kept // 2] + CUT[:width] + (text[len(text) - kept // 2 :] if kept // 2 else "")


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: frozenset[str] = frozenset(),
    styles: Sequence[str] = (),
    width: int = 0,
    drop: Sequence[str] = (),
) -> list[Row]:
    """Columns two spaces apart, none of its lines longer than `width` (0: no limit).

    Too wide: the columns in `drop` go one by one, in this order; then the first column is cut in the middle; and the
    last one, if it is not aligned to the right, gets what is left, and ends the line wherever that is.
    """
    names = fitting(header, rows, right=right, width=width, drop=drop)
    widths = _widths(header, rows)
    last = "" if header[-1] in right else header[-1]
    if width:
        spare = width - _least(names, widths, last=last)
        if spare < 0:
            first = names[0]
            widths[first] = max(min(widths[first], SMALLEST_NAME), widths[first] + spare)
    places = [header.index(name) for name in names]
    lines = []
    for row in [header, *rows]:
        cells = [cut_middle(row[places[0]], widths[names[0]]), *(row[place] for place in places[1:])]
        padded = [
            cell.rjust(widths[name]) if name in right else cell.ljust(widths[name])
            for cell, name in zip(cells, names, strict=True)
        ]
        line = (" " * GAP).join(padded).rstrip()
        lines.append(cut(line, width) if width else line)
    return [Row(line, _style(number, styles)) for number, line in enumerate(lines)]


def fitting(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: frozenset[str] = frozenset(),
    width: int = 0,
    drop: Sequence[str] = (),
) -> list[str]:
    """The columns that stay when those in `drop` go one by one, in this order, until the others fit."""
    names = list(header)
    widths = _widths(header, rows)
    last = "" if header[-1] in right else header[-1]
    going = [name for name in drop if name in names]
    while width and going and _least(names, widths, last=last) > width:
        names.remove(going.pop(0))
    return names


def _widths(header: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, int]:
    return {name: max(len(row[place]) for row in [header, *rows]) for place, name in enumerate(header)}


def _style(number: int, styles: Sequence[str]) -> str:
    if number == 0:
        return "bold"
    return styles[number - 1] if styles else ""


def _least(names: Sequence[str], widths: dict[str, int], *, last: str) -> int:
    """The width of these columns when the last one has been cut as far as it may be."""
    needed = [min(widths[name], SMALLEST_REST) if name == last else widths[name] for name in names]
    return sum(needed) + GAP * (len(names) - 1)
