"""What happened to a stage: its attempts, what each cost, and the numbers that its surviving lineage logged.

Seconds are differences of modification times of files in one attempt directory, so they come from one clock, that of
the file server.
"""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.files import AttemptDir
from jobs.spec import Cause
from stx import records
from stx.errors import StoreError
from stx.paths import StageDir


@dataclass(frozen=True)
class AttemptFacts:
    """One allocation given to a stage. `result` is LIVE while there is neither an outcome nor a verdict."""

    number: int
    result: str
    cause: str
    message: str
    ranks: int
    seconds: float | None
    recomputed_images: int


@dataclass(frozen=True)
class Point:
    """One logged line of the lineage."""

    images: int
    values: Mapping[str, float]


def attempts(stage: StageDir) -> list[AttemptFacts]:
    """All attempts of a stage, in the order they were claimed."""
    return [_attempt(stage.attempt(number), number=number) for number in stage.attempts()]


def _attempt(folder: AttemptDir, *, number: int) -> AttemptFacts:
    outcomes = _outcomes(folder)
    verdict = _find(folder.verdict)
    told = _find(folder.attempt) or {}
    ended = outcomes or ([verdict] if verdict else [])
    worst = min(ended, key=_severity, default={"result": "LIVE"})
    info = [outcome.get("info") or {} for outcome in outcomes]
    return AttemptFacts(
        number=number,
        result=str(worst.get("result", "LOST")),
        cause=str(worst.get("cause") or ""),
        message=str(worst.get("message") or ""),
        ranks=int(told.get("layout", {}).get("ranks", 1)),
        seconds=_seconds(folder),
        recomputed_images=max((int(one.get("recomputed_images", 0)) for one in info), default=0),
    )


def _severity(record: Mapping[str, Any]) -> tuple[int, int]:
    """Ranks may disagree: a failure beats a yield, a yield completion; of causes, the earlier in jobs.spec.Cause."""
    place = {"YIELDED": 1, "COMPLETED": 2}.get(str(record.get("result")), 0)
    cause = record.get("cause")
    return place, list(Cause).index(cause) if cause in list(Cause) else len(Cause)


def _outcomes(folder: AttemptDir) -> list[dict[str, Any]]:
    return [record for path in folder.outcomes() if (record := _find(path))]


def _find(path: Path) -> dict[str, Any] | None:
    """A record that another process may be writing just now, or that a full disk cut short: then it says nothing."""
    with contextlib.suppress(StoreError):
        return records.find(path)
    return None


def _seconds(folder: AttemptDir) -> float | None:
    start = _modified([folder.started])
    end = _modified([*folder.outcomes(), folder.verdict]) or _modified([folder.heartbeat, *folder.logs()])
    return max(0.0, end - start) if start and end else None


def _modified(paths: Iterable[Path]) -> float | None:
    times = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            times.append(path.stat().st_mtime)
    return max(times, default=None)


def curve(stage: StageDir) -> list[Point]:
    """The logged numbers along the lineage: a later attempt replaces what earlier ones logged from its first line on,
    so a curve never doubles back."""
    kept: list[list[Point]] = []
    cut: float = float("inf")
    for number in reversed(stage.attempts()):
        points = [point for point in _logged(stage.attempt(number)) if point.images < cut]
        if points:
            cut = points[0].images
            kept.append(points)
    return [point for points in reversed(kept) for point in points]


def _logged(folder: AttemptDir) -> list[Point]:
    points = []
    for line in records.read_lines(folder.metrics):
        values = {name: value for name, value in line.items() if isinstance(value, int | float) and name != "images"}
        points.append(Point(images=int(line["images"]), values=values))
    return points
