"""outcome-<rank>.json: what a rank, or for a rank that never started its supervisor, says of an attempt. Standard
library only.

    {"rank": 0, "result": "FAILED", "cause": "SETUP", "message": "last log lines", "info": {...}}

It is published by link(2), so the first word stands, and it beats whatever the scheduler says.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from jobs import files
from jobs.files import AttemptDir
from jobs.spec import Cause, Result

EXIT_YIELDED = 75  # of a rank, as EX_TEMPFAIL: saved, run me again. 0 is completed, all else failed
MESSAGE_CHARACTERS = 8000  # the end of a longer message is kept: a traceback's last line says most


@dataclass(frozen=True)
class Outcome:
    """`cause` is set exactly when the result is FAILED."""

    rank: int
    result: Result
    cause: Cause | None = None
    message: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert (self.cause is not None) == (self.result is Result.FAILED), "a cause belongs to FAILED, and only to it"

    def encode(self) -> bytes:
        """Its bytes on disk."""
        record = asdict(self) | {"message": self.message[-MESSAGE_CHARACTERS:]}
        return json.dumps(record, sort_keys=True).encode() + b"\n"

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> "Outcome":
        """The inverse of `encode`, after json.loads."""
        cause = None if record["cause"] is None else Cause(record["cause"])
        return cls(record["rank"], Result(record["result"]), cause, record["message"], record["info"])


def read(attempt: AttemptDir, rank: int) -> Outcome | None:
    """What this rank said, or None if it did not speak (yet)."""
    data = files.read(attempt.outcome(rank))
    return None if data is None else Outcome.parse(json.loads(data))


def publish(attempt: AttemptDir, outcome: Outcome) -> bool:
    """Say it, unless the rank has an outcome already."""
    return files.publish(attempt.outcome(outcome.rank), outcome.encode())
