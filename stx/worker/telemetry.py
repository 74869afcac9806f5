"""Numbers for plots and for people: metrics.jsonl every `log_every` steps and at milestones, and the heartbeat.

Scalars are summed on the device; a line costs one read by the host (and, with several ranks, one all-reduce), never
one per step. A line holds the means over the steps since the last one. Losses arrive as sums over the rows of one rank
divided by a number all ranks know (stx/alignment/base.py), so adding over micro-batches and ranks gives the value of
the global batch.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from stx import records
from stx.worker.attempt import Attempt
from stx.worker.ranks import Ranks
from stx.worker.stopwatch import Stopwatch

MEAN_SQUARE = "_mean_square"


@dataclass
class Meter:
    """Collects the scalars of one attempt's steps. `total` is for progress only: the images it works towards; `teacher`
    measures one that runs along.
    """

    attempt: Attempt
    ranks: Ranks
    log_every: int
    total: int
    teacher: Stopwatch | None = None
    _sums: dict[str, Tensor] = field(default_factory=dict)
    _steps: int = 0
    _first_images: int = -1
    _waited_s: float = 0.0
    _paused_s: float = 0.0
    _began: float = field(default_factory=time.monotonic)
    _last: dict[str, float] = field(default_factory=dict)

    def begin_step(self, *, images: int) -> None:
        """A step starts at `images` seen."""
        if self._first_images < 0:
            self._first_images = images
            self._began = time.monotonic()

    def add(self, scalars: Mapping[str, Tensor]) -> None:
        """Add scalars of a micro-batch, or of a step."""
        for name, value in scalars.items():
            held = self._sums.get(name)
            self._sums[name] = value.detach().to(torch.float64) if held is None else held + value.detach()

    def waited(self, seconds: float) -> None:
        """Time spent waiting for data."""
        self._waited_s += seconds

    def paused(self, seconds: float) -> None:
        """Time that is not training (saving, publishing): left out of the rate."""
        if self._first_images >= 0:
            self._paused_s += seconds

    def end_step(self, *, step: int, images: int, grad_norm: float, wanted: bool = False) -> None:
        """A step ended (`step` steps and `images` images are done): beat, and write a line every `log_every` steps and
        where a result is wanted.
        """
        self._steps += 1
        if wanted or step % self.log_every == 0:
            self._write_line(step=step, images=images, grad_norm=grad_norm)
        self.attempt.heart.beat("step", images=images, total=self.total, **self._last)

    def latest(self) -> dict[str, float]:
        """Loss and rate of the last line, if there is one."""
        return dict(self._last)

    def _write_line(self, *, step: int, images: int, grad_norm: float) -> None:
        seconds = time.monotonic() - self._began - self._paused_s
        line: dict[str, float | int | None] = {"images": images, "step": step, "grad_norm": finite(grad_norm)}
        line["images_per_s"] = rate = (images - self._first_images) / max(seconds, 1e-9)
        line["loader_wait_s"] = self._waited_s
        line |= self._device_numbers()
        line |= self._means()
        self._last = {name: value for name in ("loss", "images_per_s") if (value := line.get(name)) is not None}
        if self.ranks.rank == 0:
            records.append(self.attempt.folder.metrics, line | {"images_per_s": rate, "time": time.time()})
        self._sums, self._steps, self._first_images, self._waited_s, self._paused_s = {}, 0, -1, 0.0, 0.0

    def _device_numbers(self) -> dict[str, float]:
        """Of rank 0: the time of a teacher that runs along, and the most memory on a GPU."""
        found: dict[str, float] = {}
        if self.teacher is not None:
            found["teacher_s"] = self.teacher.read()
        if self.ranks.device.type == "cuda":
            found["gpu_memory_bytes"] = torch.cuda.max_memory_allocated(self.ranks.device)
        return found

    def _means(self) -> dict[str, float | None]:
        """Means over the steps since the last line, of the whole global batch."""
        names = sorted(self._sums)
        if not names:
            return {}
        total = self.ranks.sum(torch.stack([self._sums[name] for name in names]))
        values = dict(zip(names, (total / self._steps).tolist(), strict=True))
        means = {name: finite(value) for name, value in values.items() if not name.endswith(MEAN_SQUARE)}
        for name in names:
            if name.endswith(MEAN_SQUARE):
                means[f"{name.removesuffix(MEAN_SQUARE)}_rms"] = (
                    finite(math.sqrt(values[name])) if values[name] >= 0 else None
                )
        return means


def finite(value: float) -> float | None:
    """JSON has no NaN: a number that is none is null."""
    return value if math.isfinite(value) else None
