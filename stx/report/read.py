"""What the report takes from payloads. A report can do without any one of them: what is damaged, or not what its record
says, is named in a warning and left out, and the rest is told.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jobs import typed
from stx import npy, records
from stx.errors import DataError, StxError
from stx.paths import SCORES, PartDir, samples_file
from stx.report.facts import GUIDED, NOISY, PCA, PROBES, array_in, labels_in
from stx.spec import Artifact, find_artifact

INSPECT_INFO = "inspect.json"
LARGEST_SIDE = 8192  # pixels of one sample
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def left_out() -> Iterator[None]:
    """Around what the report can do without: what is damaged is named in a warning, and the rest is told."""
    try:
        yield
    except StxError as error:
        logger.warning("left out of the report: %s: %s", error.where, error.what)


def scored(part: PartDir) -> tuple[Artifact, Mapping[str, float], Mapping[str, Any]] | None:
    """A part's artifact, scores and protocol; None where they are not there, or damaged."""
    with left_out():
        artifact, record = find_artifact(part.artifact), records.find(part.path / SCORES)
        with records.understood(part.path / SCORES):
            if artifact is not None and record is not None:
                values = typed.matching(Mapping[str, float], record["scores"])
                return artifact, values, typed.matching(Mapping[str, Any], record["protocol"])
    return None


def has_samples(folder: Path) -> bool:
    """Whether the first samples and their labels can be shown."""
    with left_out():
        images, labels = npy.load(folder / samples_file(0), dtype=np.uint8, dims=4, mapped=True), labels_in(folder)
        if len(labels) >= len(images) > 0 and max(images.shape[1:3]) <= LARGEST_SIDE and images.shape[3] in (1, 3):
            return True
        raise DataError(f"samples of shape {images.shape} with {len(labels)} labels", where=str(folder))
    return False


@dataclass(frozen=True)
class _Seen:
    """What the report uses of inspect.json (stx/worker/inspect.py)."""

    labels: tuple[int, ...]
    times: tuple[float, ...]
    blocks: tuple[int, ...]
    num_images: int
    guided: Mapping[str, Any] | None
    class_names: tuple[str, ...] | None

    def check(self, folder: Path) -> None:
        """ValueError unless the arrays are those that it speaks of."""
        counts = (len(self.labels), len(self.times), len(self.blocks))
        starts = {PROBES: counts[1:], PCA: counts, NOISY: counts[:2]}
        if self.guided is not None:
            starts[GUIDED] = (*counts[:2], 2)
            _ = [typed.matching(float, self.guided[name]) for name in ("block", "guidance")]
        for name, start in starts.items():
            if array_in(folder, name).shape[: len(start)] != start:
                raise ValueError(f"{name} is not of the shape {start}, ...")
        if not 1 <= self.num_images <= counts[0] or 0 in counts:
            raise ValueError(f"{self.num_images} images of {counts[0]}")


def inspected(part: PartDir) -> Mapping[str, Any] | None:
    """inspect.json; None where it or its arrays are not what a stage wrote."""
    path = part.path / INSPECT_INFO
    with left_out():
        info = records.read(path)
        with records.understood(path):
            told = {name: info.get(name) for name in _Seen.__dataclass_fields__}
            typed.build(_Seen, told).check(part.path)
        return info
    return None
