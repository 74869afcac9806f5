"""What happened to a stage: its attempts, what each cost, and the numbers that its surviving lineage logged.

Seconds are differences of modification times of files in one attempt directory, so they come from one clock, that of
the file server.
"""

import contextlib
import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs import typed
from jobs.files import AttemptDir
from jobs.spec import Cause
from stx import records
from stx.errors import StoreError
from stx.paths import StageDir

NUMBER = (int, float)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AttemptFacts:
    """One allocation given to a stage. `result` is LIVE while there is neither an outcome nor a verdict; `layout` says
    in words how the work was spread, `versions` what it ran with, where the attempt recorded it.
    """

    number: int
    result: str
    cause: str
    message: str
    ranks: int
    seconds: float | None
    recomputed_images: int
    cores: int = 1
    gpus: int = 0
    host: str = ""
    cluster: str = ""
    code: str = ""
    layout: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


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
    told, claim = _find(folder.attempt) or {}, _find(folder.intent) or {}
    ended = outcomes or ([verdict] if verdict else [])
    worst = min(ended, key=_severity, default={"result": "LIVE"})
    info = [_mapping(outcome, "info") for outcome in outcomes]
    layout = _mapping(told, "layout")
    ranks = _count(layout, "ranks", otherwise=1)
    return AttemptFacts(
        number=number,
        result=str(worst.get("result", "LOST")),
        cause=str(worst.get("cause") or ""),
        message=str(worst.get("message") or ""),
        ranks=ranks,
        seconds=_seconds(folder),
        recomputed_images=max((_count(one, "recomputed_images", otherwise=0) for one in info), default=0),
        cores=ranks * _count(layout, "cpus_per_rank", otherwise=1),
        gpus=ranks * _count(layout, "gpus_per_rank", otherwise=0),
        host=str(next((one["host"] for one in info if one.get("host")), claim.get("host", ""))),
        cluster=str(claim.get("cluster", "")),
        code=str(told.get("code", "")),
        layout=_layout_words(layout, threads=told.get("threads")),
        versions={str(k): str(v) for one in info for k, v in _mapping(one, "versions").items() if k != "host"},
    )


def _mapping(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What is told under a name, where that is a mapping."""
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def _count(record: Mapping[str, Any], name: str, *, otherwise: int) -> int:
    """What is counted under a name, where that is a number."""
    value = record.get(name)
    return value if type(value) is int and 0 <= value < typed.LARGEST else otherwise


def _layout_words(layout: Mapping[str, Any], *, threads: Any) -> str:
    """What decides the bits of a result beside the options: 2 ranks, ZeRO 1, micro-batch 32, 1 thread each."""
    words = [f"{layout.get('ranks', 1)} rank" + ("" if layout.get("ranks", 1) == 1 else "s")] if layout else []
    words += [f"{layout['gpus_per_rank']} GPU each"] if layout.get("gpus_per_rank") else []
    words += [f"{threads} thread" + ("" if threads == 1 else "s")] if threads else []
    words += [f"ZeRO {layout['zero_stage']}"] if "zero_stage" in layout else []
    words += [f"micro-batch {layout['micro_batch']}"] if "micro_batch" in layout else []
    words += [name.replace("_", " ") for name in ("compile", "activation_checkpointing") if layout.get(name)]
    return ", ".join(words)


def _severity(record: Mapping[str, Any]) -> tuple[int, int]:
    """Ranks may disagree: a failure beats a yield, a yield completion; of causes, the earlier in jobs.spec.Cause."""
    place = {"YIELDED": 1, "COMPLETED": 2}.get(str(record.get("result")), 0)
    cause = record.get("cause")
    return place, list(Cause).index(cause) if cause in list(Cause) else len(Cause)


def _outcomes(folder: AttemptDir) -> list[dict[str, Any]]:
    return [record for path in folder.outcomes() if (record := _find(path))]


def _find(path: Path) -> dict[str, Any] | None:
    """A record that another process may be writing just now, or that a full disk cut short: then it says nothing."""
    with contextlib.suppress(StoreError, OSError):
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


def curve(stage: StageDir, *, limit: int | None = None) -> list[Point]:
    """The logged numbers along the lineage: a later attempt replaces what earlier ones logged from its first line on,
    so a curve never doubles back. At most `limit` points: then neighbours become their mean, at the images of the last.
    """
    kept: list[list[dict[str, Any]]] = []
    cut: float = float("inf")
    for number in reversed(stage.attempts()):
        lines = [line for line in _logged(stage.attempt(number).metrics) if line["images"] < cut]
        if lines:
            cut = lines[0]["images"]
            kept.append(lines)
    lines = [line for part in reversed(kept) for line in part]
    count = len(lines) if limit is None else min(limit, len(lines))
    edges = [place * len(lines) // count for place in range(count + 1)] if count else []
    return [_mean(lines[begin:end]) for begin, end in itertools.pairwise(edges)]


def _logged(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl. A damaged one is named and left out: it is a point of a curve, nothing is computed
    from it, and it must not cost the report over everything else.
    """
    try:
        lines = records.load_lines(path)
    except StoreError as error:
        logger.warning("left out of the curves: %s", error)
        lines = []
        with contextlib.suppress(StoreError):  # no plain file, or one without an end
            lines = records.sound_lines(path)
    return [line for line in lines if _count(line, "images", otherwise=-1) >= 0]


def _mean(lines: Sequence[Mapping[str, Any]]) -> Point:
    """What is a number in any of them (a loss that was none is null)."""
    found: dict[str, list[float]] = {}
    for line in lines:
        for name, value in line.items():
            if type(value) in NUMBER and abs(value) < typed.LARGEST:
                found.setdefault(name, []).append(value)
    images = int(lines[-1]["images"])
    return Point(images, {name: sum(of) / len(of) for name, of in found.items() if name != "images"})
