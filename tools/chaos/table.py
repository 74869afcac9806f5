"""What the driver prints: a line for each run, totals, and what to look at when something is wrong."""

from collections import Counter
from collections.abc import Sequence

from tools.chaos.run import Report
from tools.chaos.schedule import KINDS

COLUMNS = (
    ("seed", 8),
    ("faults", 6),
    ("in a save", 9),
    ("attempts", 8),
    ("recomputed", 10),
    ("submits", 7),
    ("seconds", 7),
    ("named", 5),
    ("unread", 6),
    ("cancelled", 9),
    ("surprises", 9),
    ("lost", 4),
    ("wrong", 5),
)


def head() -> str:
    """The names of the columns."""
    return "  ".join(name.rjust(width) for name, width in COLUMNS)


def line(report: Report) -> str:
    """One run."""
    return _row([str(report.seed), *_numbers([report])])


def totals(reports: Sequence[Report]) -> str:
    """All runs, and their faults by kind."""
    kinds: Counter[str] = sum((report.faults for report in reports), Counter())
    words = ", ".join(f"{kind} {kinds[kind]}" for kind in KINDS if kinds[kind])
    return f"{_row(['all', *_numbers(reports)])}\nfaults by kind: {words or 'none'}"


def faults(report: Report) -> str:
    """What is not as it should be in one run, one line each."""
    found = [f"lost {name}" for name in report.lost] + [f"wrong {name}" for name in report.wrong]
    found += [f"cancelled {name}" for name in report.cancelled] + [f"surprise {words}" for words in report.surprises]
    return "\n".join(f"seed {report.seed}: {words}" for words in found)


def _numbers(reports: Sequence[Report]) -> list[str]:
    numbers = (
        sum(report.faults.total() for report in reports),
        sum(report.in_save for report in reports),
        sum(report.attempts for report in reports),
        sum(report.recomputed for report in reports),
        sum(report.submits for report in reports),
        round(sum(report.seconds for report in reports)),
        sum(report.named for report in reports),
        sum(report.unread for report in reports),
        sum(len(report.cancelled) for report in reports),
        sum(len(report.surprises) for report in reports),
        sum(len(report.lost) for report in reports),
        sum(len(report.wrong) for report in reports),
    )
    return [f"{number:,}" for number in numbers]


def _row(cells: Sequence[str]) -> str:
    return "  ".join(cell.rjust(width) for cell, (_, width) in zip(cells, COLUMNS, strict=True))
