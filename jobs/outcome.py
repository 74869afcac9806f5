"""outcome-<rank>.json: what a rank, or for a rank that never started its supervisor, says of an attempt. Standard
library only.

    {"rank": 0, "result": "FAILED", "cause": "SETUP", "message": "last log lines", "info": {...}}

It is published by link(2), so the first word stands, and it beats whatever the scheduler says.
"""

import errno
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from jobs import files, typed
from jobs.files import AttemptDir
from jobs.spec import Cause, Result

EXIT_YIELDED = 75  # of a rank, as EX_TEMPFAIL: saved, run me again. 0 is completed, all else failed
# How a rank ends that cannot even write its outcome, as EX_CANTCREAT and EX_IOERR: its supervisor may be luckier.
EXIT_CAUSES = {73: Cause.NO_SPACE, 74: Cause.NODE}
SAY_AGAIN_S = (0.1, 1.0, 3.0)
# What a system call says of a disk or a quota that is full, and of a file system that a node lost: NFS says ESTALE,
# Lustre ESHUTDOWN and ENOTCONN, a soft mount ETIMEDOUT; a disk with errors is EIO, and is mounted again read-only.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
BROKEN = frozenset({errno.EIO, errno.ESTALE, errno.EROFS, errno.ENXIO, errno.ENODEV, errno.EREMOTEIO})
UNREACHABLE = frozenset({errno.ESHUTDOWN, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN})
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
        """The inverse of `encode`, after json.loads; ValueError says what is wrong."""
        if (record.get("cause") is not None) != (record.get("result") == Result.FAILED):
            raise ValueError("a cause belongs to FAILED, and only to it")
        return typed.build(cls, record)


def cause_of(number: int | None) -> Cause | None:
    """Whose fault an errno is: NO_SPACE, NODE (another one may do better), or None: it says nothing of that."""
    if number in FULL:
        return Cause.NO_SPACE
    return Cause.NODE if number in BROKEN | UNREACHABLE else None


def blamed(cause: Cause | None, node: str) -> dict[str, str]:
    """What the info of an outcome says besides: which node it was, where it was the node. Only who saw it says so, not
    a rank that was ended for another one's failure.
    """
    return {"node": node} if cause is Cause.NODE and node else {}


def read(attempt: AttemptDir, rank: int) -> Outcome | None:
    """What this rank said, or None if it did not speak (yet)."""
    data = files.read(attempt.outcome(rank))
    return None if data is None else Outcome.parse(typed.mapping(data))


def publish(attempt: AttemptDir, outcome: Outcome) -> bool:
    """Say it, unless the rank has an outcome already."""
    return insist(lambda: files.publish(attempt.outcome(outcome.rank), outcome.encode()))


def insist(say: Callable[[], bool]) -> bool:
    """Say it again, for some seconds, while the file system is full or broken: an attempt without a word is lost."""
    for pause_s in SAY_AGAIN_S:
        try:
            return say()
        except OSError as error:
            if cause_of(error.errno) is None:
                raise
        time.sleep(pause_s)
    return say()


def exit_code(error: OSError) -> int:
    """The exit code of a rank that cannot write what happened."""
    return code_of(cause_of(error.errno))


def code_of(cause: Cause | None) -> int:
    """The exit code that tells a cause; 1 for one that has none."""
    return next((code for code, one in EXIT_CAUSES.items() if one is cause), 1)
