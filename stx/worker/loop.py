"""The training loop: a pure step repeated, and at its boundaries the decisions that all ranks take together.

Per step, after the last backward pass and before the optimizer: ONE all-reduce of (sum of squared gradients, stop, save
due). Reading it is the step's only wait of the host. It decides, equally on every rank,
  - whether the gradients are finite: if not, they are discarded; the images count as seen, weights, Adam and EMA stay
    as they are; five in a row end the stage;
  - how much to clip;
  - whether to save, and whether to leave after it.
Time decides WHEN to save, never a result. What is wanted is reread as it goes, so that a milestone that another
experiment adds is met when it comes by.
"""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

import torch

from jobs import runtime
from stx.data.loader import Batch, TrainLoader
from stx.errors import StoreError
from stx.worker import milestones, pace
from stx.worker.attempt import Attempt, NonFinite, Yielded
from stx.worker.checkpoint import Checkpoint, Keeper
from stx.worker.ranks import Ranks
from stx.worker.telemetry import Meter
from stx.worker.zero.partition import Partition

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

logger = logging.getLogger(__name__)
MAX_SKIPPED_IN_A_ROW = 5


@dataclass
class Progress:
    """Where a run stands. `lineage`: the ranges of images that led here, [from, to, attempt], no gap, no overlap."""

    images: int = 0
    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    seconds: float = 0.0
    lineage: list[list[int]] = field(default_factory=list)


@dataclass
class Clock:
    """Seconds of the lineage: what led to the restored checkpoint, and this attempt since its process started. On the
    monotonic clock: that on the wall may jump.
    """

    before: float
    process_began: float = field(default_factory=lambda: time.monotonic() - runtime.age_s())
    noted: bool = False

    def seconds(self) -> float:
        """Of the whole lineage, until now."""
        return self.before + time.monotonic() - self.process_began

    def note_first_step(self, attempt: Attempt) -> None:
        """Note how long it took from the start of the process to the end of its first step."""
        if not self.noted:
            self.noted = True
            attempt.notes["first_step_s"] = round(time.monotonic() - self.process_began, 3)


@dataclass(frozen=True)
class Agreement:
    """What the one all-reduce of a step said, to all ranks alike."""

    norm: float
    stop: bool
    save: bool


@dataclass
class Loop:
    """One rank's part of a run."""

    attempt: Attempt
    ranks: Ranks
    engine: "DeepSpeedEngine"
    partition: Partition
    loader: TrainLoader
    keeper: Keeper
    meter: Meter
    progress: Progress
    goals: list[int]
    clock: Clock
    saved_images: int
    reached: int  # how far earlier attempts came: what lies between is recomputed
    saved_at: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        """Train to the last wanted count, publishing what comes by; Yielded when asked to leave."""
        started = self.progress.images
        self.attempt.notes.update({"from": started, "to": started, "recomputed_images": 0})
        if self.remaining():
            with self.loader.batches(started, until=None) as steps:
                iterator = iter(steps)
                while self.remaining():
                    began = time.monotonic()
                    batches = next(iterator)
                    self.meter.waited(time.monotonic() - began)
                    agreed = self.step(batches)
                    self.clock.note_first_step(self.attempt)
                    self.after_step(agreed)

    def remaining(self) -> bool:
        """Whether a wanted count lies ahead; at the end what is wanted is read once more."""
        if self.goals and self.goals[-1] > self.progress.images:
            return True
        self.reread()
        return bool(self.goals) and self.goals[-1] > self.progress.images

    def reread(self) -> None:
        """Read again what is wanted."""
        self.goals = read_goals(self.attempt, self.ranks, global_batch=self.global_batch)
        self.meter.total = max([self.progress.images, *self.goals])

    @property
    def global_batch(self) -> int:
        """Images per step."""
        return int(self.attempt.science["global_batch"])

    def step(self, batches: Sequence[Batch]) -> Agreement:
        """One optimizer step, or a skipped one."""
        self.meter.begin_step(images=self.progress.images)
        self.accumulate(batches)
        agreed = self.agree()
        if math.isfinite(agreed.norm):
            self.apply(agreed.norm)
        else:
            self.skip(agreed.norm)
        self.progress.images += self.global_batch
        self.progress.step += 1
        self.engine.module.alignment.after_step(self.progress.step)
        images, step = self.progress.images, self.progress.step
        self.meter.end_step(step=step, images=images, grad_norm=agreed.norm, wanted=images in self.goals)
        return agreed

    def accumulate(self, batches: Sequence[Batch]) -> None:
        """Forward and backward of this rank's micro-batches; after it, its part of the averaged gradient is there."""
        for number, batch in enumerate(batches, start=1):
            output = self.engine(batch.to(self.ranks.device))
            # DeepSpeed averages over ranks; losses are parts of one sum (stx/alignment/base.py).
            self.engine.backward(output.loss * self.ranks.size, scale_wrt_gas=False)
            self.meter.add(output.scalars)
            if number < len(batches):
                self.engine.step()

    def agree(self) -> Agreement:
        """The all-reduce of the step."""
        due = self.ranks.rank == 0 and time.monotonic() - self.saved_at >= self.interval
        flags = torch.tensor([runtime.stop_requested(), due], dtype=torch.float32, device=self.ranks.device)
        total, stop, save = self.ranks.sum(torch.cat([self.partition.square_norm().reshape(1), flags])).tolist()
        return Agreement(norm=math.sqrt(total) if total >= 0 else math.nan, stop=stop > 0, save=save > 0)

    def apply(self, norm: float) -> None:
        """Clip, Adam, EMA."""
        clip = self.attempt.science["grad_clip"]
        if norm > clip:
            self.partition.scale_gradients(clip / (norm + 1e-6))
        self.partition.step()
        self.progress.skipped_in_a_row = 0

    def skip(self, norm: float) -> None:
        """Discard gradients that are not finite."""
        self.partition.discard_gradients()
        self.progress.skipped += 1
        self.progress.skipped_in_a_row += 1
        first, count = self.progress.images, self.progress.skipped_in_a_row
        last = first + self.global_batch - 1
        logger.warning(
            "skipped step images=%d..%d grad_norm=%s in_a_row=%d", first, first + self.global_batch - 1, norm, count
        )
        if count >= MAX_SKIPPED_IN_A_ROW:
            begin = first - (count - 1) * self.global_batch
            raise NonFinite(
                f"the gradients of {count} steps in a row were not finite: images {begin} to {last}",
                hint="lower lr or the alignment's guidance or weight",
            )

    def after_step(self, agreed: Agreement) -> None:
        """Save, publish, reread, leave: what this step's boundary asks for."""
        images = self.progress.images
        if self.progress.step % self.meter.log_every == 0 or agreed.save:
            self.reread()
        self.note_range(images)
        reached = images in self.goals
        if reached or agreed.save or agreed.stop:
            if not self.save_fits(stop=agreed.stop):
                self.leave(saved=False)
            checkpoint = self.save()
            if reached:
                self.publish(checkpoint)
            self.attempt.heart.beat("step", images=images, total=self.meter.total, **self.meter.latest())
        if agreed.stop and self.remaining():
            self.leave(saved=True)

    def note_range(self, images: int) -> None:
        """Keep the outcome's account of what this attempt has trained."""
        again = max(0, min(self.reached, images) - self.attempt.notes["from"])
        self.attempt.notes.update({"to": images, "recomputed_images": again})

    def leave(self, *, saved: bool) -> NoReturn:
        """Yield. Its own phase makes the heartbeat exact: the next attempt counts by it what it recomputes."""
        images = self.progress.images
        self.attempt.heart.beat("leave", images=images, total=self.meter.total)
        self.attempt.notes.update({"saved": saved, "images": images, "unsaved_images": images - self.saved_images})
        raise Yielded

    @property
    def interval(self) -> float:
        """Seconds from the end of a save to the next one that is due by time."""
        return pace.interval(self.attempt, save_seconds=self.keeper.save_seconds)

    def save_fits(self, *, stop: bool) -> bool:
        """Whether the time that is left is enough for a save; rank 0's clock speaks for all."""
        expected = self.keeper.expected_seconds(self.partition.written())
        first = not self.keeper.save_seconds
        return bool(self.ranks.agree(pace.fits(self.attempt, expected_seconds=expected, stop=stop, first=first)))

    def save(self) -> Checkpoint:
        """Save the state after the last step."""
        images = self.progress.images
        self.attempt.heart.beat("save", images=images, total=self.meter.total)
        self.progress.seconds = self.clock.seconds()
        checkpoint = self.keeper.save(
            images=images,
            slices=self.partition.written(),
            shapes=self.partition.shapes,
            progress=dump_progress(self.progress, attempt=self.attempt.number, updates=self.partition.updates),
        )
        self.saved_images, self.saved_at = images, time.monotonic()
        if self.interval > self.attempt.checkpoint_every_s:
            told = "next timed save seconds=%.0f, not every_s=%g: max_stall=%g"
            logger.info(told, self.interval, self.attempt.checkpoint_every_s, self.attempt.max_stall)
        self.meter.paused(self.keeper.save_seconds)
        return checkpoint

    def publish(self, checkpoint: Checkpoint) -> None:
        """Rank 0 publishes the milestone; the others wait for it here, where the limit is that of a save."""
        began = time.monotonic()
        self.attempt.heart.beat("save", images=self.progress.images, total=self.meter.total)
        if self.ranks.rank == 0:
            milestones.publish_milestone(self.attempt, checkpoint, info=self.meter.latest())
        self.ranks.agree(True)
        self.meter.paused(time.monotonic() - began)


def dump_progress(progress: Progress, *, attempt: int, updates: int) -> dict[str, object]:
    """What a checkpoint records beside its tensors."""
    lineage = extended(progress.lineage, images=progress.images, attempt=attempt)
    return vars(progress) | {"lineage": lineage, "updates": updates}


def extended(lineage: Sequence[Sequence[int]], *, images: int, attempt: int) -> list[list[int]]:
    """The ranges of images that led to `images`, the last of them this attempt's."""
    begin = lineage[-1][1] if lineage else 0
    return [list(part) for part in lineage] + ([[begin, images, attempt]] if images > begin else [])


def read_goals(attempt: Attempt, ranks: Ranks, *, global_batch: int) -> list[int]:
    """What is wanted now, ascending, as rank 0 sees it."""
    goals = ranks.agree(sorted(attempt.wanted()) if ranks.rank == 0 else [])
    bad = [goal for goal in goals if goal % global_batch]
    if bad:
        raise StoreError(
            f"{bad[0]} images are wanted, which is no whole number of steps of {global_batch}",
            where=str(attempt.stage.wanted_by),
        )
    return goals
