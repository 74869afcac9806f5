"""The numbers of a running job as Ray metrics: what rank 0 writes of its progress, read again every few seconds in the
actor that holds its place, and labelled so that a dashboard can be asked for one experiment, or one stage.

`numbers` is pure, and knows of a job only what every job has: a heartbeat, and lines of numbers. A number that a job
does not write has no series. Ray calls them ray_<name>, and exports them on every node's metrics port.
"""

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from jobs import files, typed
from jobs.files import AttemptDir

EVERY_S = 5.0
TAIL_BYTES = 1 << 14  # of metrics.jsonl: some lines
LABELS = ("experiment", "stage", "point", "kind", "attempt")
GAUGES: Mapping[str, str] = {
    "stx_loss": "Loss of the global batch, mean since the last line.",
    "stx_images": "Images seen.",
    "stx_images_wanted": "Images that the run works towards.",
    "stx_images_per_s": "Images trained a second, without saves.",
    "stx_teacher_share": "Share of the time that the teacher takes.",
    "stx_loader_wait_share": "Share of the time that the training waits for data.",
    "stx_checkpoint_age_s": "Seconds since the last save was over; since the start where there was none.",
    "stx_gpu_memory_bytes": "Most memory that rank 0 had on its GPU.",
}


@dataclass
class Saves:
    """When the last save was over, as the heartbeat's phases tell."""

    since: float
    saving: bool = False

    def look(self, phase: str, *, now: float) -> float:
        """Seconds since the last one."""
        if phase == "save" or self.saving:
            self.since = now
        self.saving = phase == "save"
        return now - self.since


@dataclass
class Follower:
    """Reads one attempt again and again."""

    attempt: AttemptDir
    saves: Saves = field(default_factory=lambda: Saves(time.monotonic()))

    def look(self) -> dict[str, float]:
        """The numbers as they are now, by the names of GAUGES."""
        heart, lines = {}, b""
        with suppress(OSError, ValueError):
            heart = typed.mapping(files.read(self.attempt.heartbeat) or b"{}")
        with suppress(OSError):
            lines = files.tail(self.attempt.metrics, TAIL_BYTES)
        if not heart:
            return {}
        age_s = self.saves.look(str(heart.get("phase", "")), now=time.monotonic())
        return numbers(heart, lines) | {"stx_checkpoint_age_s": age_s}


def numbers(heart: Mapping[str, Any], lines: bytes) -> dict[str, float]:
    """What a heartbeat and the last lines of metrics.jsonl tell, by the names of GAUGES."""
    beats = heart.get("numbers")
    told = dict(beats) if isinstance(beats, Mapping) else {}
    parsed = [one for line in lines.splitlines() if (one := _parsed(line)) is not None]
    last = parsed[-1] if parsed else {}
    found = {
        "stx_loss": last.get("loss", told.get("loss")),
        "stx_images": told.get("images"),
        "stx_images_wanted": told.get("total"),
        "stx_images_per_s": last.get("images_per_s", told.get("images_per_s")),
        "stx_gpu_memory_bytes": last.get("gpu_memory_bytes"),
    }
    if len(parsed) > 1 and (seconds := _seconds(parsed[-2], last)) > 0:
        found["stx_loader_wait_share"] = _share(last.get("loader_wait_s"), seconds)
        found["stx_teacher_share"] = _share(last.get("teacher_s"), seconds)
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}


def _parsed(line: bytes) -> Mapping[str, Any] | None:
    """One line; None for one that is cut."""
    with suppress(ValueError):
        return typed.mapping(line)
    return None


def _seconds(before: Mapping[str, Any], last: Mapping[str, Any]) -> float:
    """How long the steps between two lines took, saves left out."""
    try:
        return float((last["images"] - before["images"]) / last["images_per_s"])
    except (KeyError, TypeError, ZeroDivisionError):
        return 0.0


def _share(part: Any, whole: float) -> float | None:
    return min(1.0, part / whole) if isinstance(part, int | float) else None


def labels_of(attempt: AttemptDir) -> dict[str, str]:
    """Whose numbers these are, by the claim. `stage` is the stage's name, `point` which one of its sweep it is."""
    record: Mapping[str, Any] = {}
    with suppress(OSError, ValueError):
        record = typed.mapping(files.read(attempt.intent) or b"{}")
    told = record.get("attempt")
    kind = str(told.get("kind", "")) if isinstance(told, Mapping) else ""
    stage, _, point = str(record.get("name") or kind).partition(":")
    found = (str(record.get("experiment", "")), stage, point, kind, attempt.path.name)
    return dict(zip(LABELS, found, strict=True))


def start(attempt: AttemptDir) -> None:
    """Set the gauges every few seconds, as long as this actor lives: only in one does Ray export anything."""
    threading.Thread(target=_follow, args=(attempt,), name="metrics", daemon=True).start()


def _follow(attempt: AttemptDir) -> None:
    from ray.util.metrics import Gauge

    tags, follower = labels_of(attempt), Follower(attempt)
    gauges = {name: Gauge(name, description=text, tag_keys=LABELS) for name, text in GAUGES.items()}
    while True:
        for name, value in follower.look().items():
            gauges[name].set(value, tags=tags)
        time.sleep(EVERY_S)
