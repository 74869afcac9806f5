"""What the stages that work through a known number of rows share: the heartbeat with a rate, the request to stop, and
the last act of publishing.

Rows that an earlier attempt finished are counted as done, not as made: rate and seconds are of what this attempt did.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stx import records
from stx.data.shards import ShardSet
from stx.paths import PartDir
from stx.worker import publish
from stx.worker.attempt import Attempt


@dataclass
class Progress:
    """Rows of one stage or part. `found` were there, `made` were added since, by this rank or, in units, by any.

    `phase` is what making them is called in hang_after_s.
    """

    attempt: Attempt
    total: int
    phase: str = "step"
    found: int = 0
    made: int = 0
    _began: float = field(default_factory=time.monotonic)
    _looked: bool = False

    def skip(self, count: int) -> None:
        """`count` rows are in the store already."""
        self.found += count

    def advance(self, count: int) -> None:
        """`count` rows more are made: beat, and leave if asked to, unless nothing is left but to publish.

        Whole shards that were published stay.
        """
        self.made += count
        self.beat()
        if self.done < self.total:
            self.leave_if_asked()

    def stand(self, count: int) -> None:
        """`count` rows are in the store now, whoever made them (stx/worker/units.py): beat."""
        if not self._looked:
            self.found, self._looked = count, True
        self.made = count - self.found
        self.beat()

    def within(self, count: int) -> None:
        """`count` rows of the unit in hand are computed: beat, and leave if asked to, losing them and no others."""
        self.beat(ahead=count)
        self.leave_if_asked()

    def leave_if_asked(self) -> None:
        """Raise Yielded when the attempt was asked to stop, noting how many rows are in the store."""
        self.attempt.leave_if_asked(images=self.done)

    def beat(self, *, ahead: int = 0) -> None:
        """One heartbeat: rows in the store, and `ahead` rows that are computed and not yet there."""
        rate = (self.made + ahead) / max(self.seconds, 1e-9)
        self.attempt.heart.beat(self.phase, images=self.done + ahead, total=self.total, images_per_s=rate)

    def saving(self) -> None:
        """All rows are made, and one more file is read to publish what describes them: beat."""
        self.attempt.heart.beat("save", images=self.done, total=self.total)

    @property
    def done(self) -> int:
        """Rows in the store."""
        return self.found + self.made

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._began

    def info(self) -> dict[str, Any]:
        """What artifact.json says besides digests."""
        return {
            "experiment": self.attempt.experiment,
            "attempt": self.attempt.number,
            "seconds": self.seconds,
            "rows_found": self.found,
            "rows_made": self.made,
        }


def standing(folder: Path, *, known: Mapping[str, str], beat: Callable[[], None]) -> dict[str, str]:
    """sha256 of every file that was published into `folder`, by name. Aside files begin with a dot."""
    found = {}
    for path in sorted(folder.iterdir()):
        if not path.name.startswith("."):
            beat()
            found[path.name] = known.get(path.name) or records.file_digest(path)
    return found


def conclude(progress: Progress, *, splits: Sequence[str] = (), info: Mapping[str, Any] | None = None) -> None:
    """Publish artifact.json over all that stands in the payload folder of a kind that does not grow.

    The indices of `splits` know the digests of their shards, which need not be read once more.
    """
    stage = progress.attempt.stage
    known = {shard.name: shard.sha256 for split in splits for shard in ShardSet(stage.payload, split).shards}
    _finish(
        progress,
        stage.result,
        names=standing(stage.payload, known=known, beat=progress.saving),
        images=None,
        info=info or {},
    )


def conclude_part(progress: Progress, *, images: int) -> None:
    """Publish artifact.json of one part of a growing kind."""
    part = progress.attempt.stage.part(progress.attempt.kind, images)
    names = standing(part.path, known={}, beat=progress.saving)
    names.pop(part.artifact.name, None)
    _finish(progress, part, names=names, images=images, info={})


def _finish(
    progress: Progress, part: PartDir, *, names: dict[str, str], images: int | None, info: Mapping[str, Any]
) -> None:
    publish.finish(progress.attempt, part, names=names, images=images, info=progress.info() | dict(info))
