"""What `python -m stx.worker` does: runs the stage of an attempt and turns whatever happens into an outcome.

returned                                    COMPLETED             exit 0
Yielded                                     YIELDED               exit 75
StxError                                    FAILED USER           exit 1, the message for people
NonFinite                                   FAILED NAN
out of memory (host or GPU)                 FAILED OOM
no space, quota                             FAILED NO_SPACE
a disk or file system that is broken        FAILED NODE           its info names the node
a GPU that others use (stx/worker/device)   FAILED NODE
another rank is gone                        FAILED LOST
no progress for too long                    FAILED HANG           jobs/watchdog.py, exit 1
anything else                               FAILED USER           the end of the traceback
"""

import errno
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs import outcome, runtime, watchdog
from jobs.outcome import Outcome
from jobs.rendezvous import NoRendezvous
from jobs.runtime import Cause, Result
from stx.errors import ConfigError, StoreError, StxError
from stx.named import load
from stx.worker import attempt as attempts
from stx.worker.attempt import Attempt, BadNode, NonFinite, Yielded

logger = logging.getLogger(__name__)
_IN_RUST = re.compile(r"\(os error (\d+)\)")  # how safetensors passes an errno on
TRACEBACK_LINES = 30


def run(folder: str) -> int:
    """Run one rank of the attempt in `folder`; the exit code."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr, force=True
    )
    path = Path(folder).absolute()
    ended = _ended(path)
    try:
        runtime.finish(path, runtime.rank(), ended.result, ended.cause, ended.message, **ended.info)
    except OSError as error:
        logger.error("cannot write how it ended: %s", error)
        return outcome.exit_code(error)
    return {Result.COMPLETED: 0, Result.YIELDED: runtime.EXIT_YIELDED, Result.FAILED: 1}[ended.result]


def _ended(path: Path) -> Outcome:
    """Run the stage; how that ended."""
    notes: dict[str, Any] = {}
    try:
        attempt = attempts.parse(path)
        notes = attempt.notes
        watchdog.start(path, attempt.heart, limits=attempt.hang_after_s)
        if attempt.rank == 0:
            _refuse_planted(attempt)
        _prepare(attempt)
        load("stx.worker", attempt.kind).run(attempt)
    except Yielded:
        return Outcome(runtime.rank(), Result.YIELDED, info=notes)
    except Exception as error:  # noqa: BLE001 (the edge of the program: everything becomes an outcome)
        cause, message = explained(error)
        logger.error("failed cause=%s\n%s", cause, message)
        return Outcome(runtime.rank(), Result.FAILED, cause, message, notes | blamed(cause))
    return Outcome(runtime.rank(), Result.COMPLETED, info=notes)


def explained(error: BaseException) -> tuple[Cause, str]:
    """The cause of a failure, and what people are told: no traceback where the error says what to do."""
    chain = list(_chain(error))
    trace = "".join(traceback.format_exception(error)).rstrip().splitlines()
    told = "\n".join(trace[-TRACEBACK_LINES:])
    causes = [outcome.cause_of(_errno(one)) for one in chain]
    for cause in (Cause.NO_SPACE, Cause.NODE):
        if cause in causes:
            return cause, str(error) or told
    if any(_is_out_of_memory(one) for one in chain):
        return Cause.OOM, told
    if any(_is_lost_peer(one) for one in chain):
        return Cause.LOST, f"the connection to another rank broke: it was ended, or its node was\n{told}"
    if isinstance(error, BadNode):
        return Cause.NODE, str(error)
    if isinstance(error, NonFinite):
        return Cause.NAN, str(error)
    if isinstance(error, StxError):
        return Cause.USER, str(error)
    return Cause.USER, told


def blamed(cause: Cause) -> dict[str, str]:
    """The node that we are on, as its scheduler calls it, where it is the node that failed."""
    return outcome.blamed(cause, os.environ.get("STX_NODE", ""))


def check(text: str) -> int:
    """Accept or refuse every distinct network of an experiment, on the meta device; one JSON object on stdout."""
    from stx.worker import module  # torch: only here and in the stages that use it

    try:
        for record in json.loads(text):
            module.check(record)
    except ConfigError as error:
        _print({"ok": False, "where": error.where, "what": error.what, "hint": error.hint})
        return error.exit_code
    _print({"ok": True})
    return 0


def sample(text: str) -> int:
    """Make one grid of images; an error is one JSON object on stdout."""
    from stx.worker import grid

    try:
        grid.make(json.loads(text))
    except StxError as error:
        _print({"exit_code": error.exit_code, "where": error.where, "what": error.what, "hint": error.hint})
        return error.exit_code
    return 0


def _refuse_planted(attempt: Attempt) -> None:
    """What we were told must come from the user whose job this is, and nothing of the own stage or of an input may lead
    out of the store. Looked at once, not at every read.
    """
    told, alive = attempt.folder.attempt, attempt.folder.alive(attempt.rank)
    if alive.exists() and alive.stat().st_uid != told.stat().st_uid:
        raise StoreError("was written by another user than the one whose job this is", where=str(told))
    for stage in {attempt.stage, *(source.stage for source in attempt.inputs.values())}:
        stage.refuse_links()


def _prepare(attempt: Attempt) -> None:
    """As many threads as cores were granted, and a note of what this runs on; `command` starts without torch."""
    if attempt.kind != "command":
        import torch

        from stx.worker import device
        from stx.worker.versions import versions

        if os.environ.get("STX_NODE"):
            device.check_guests()
        torch.set_num_threads(attempt.threads)
        attempt.notes["versions"] = versions()


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _errno(error: BaseException) -> int | None:
    """The number a system call failed with, if that is what the error is about."""
    if isinstance(error, OSError):
        return error.errno
    found = _IN_RUST.search(str(error))
    return int(found[1]) if found else None


def _is_out_of_memory(error: BaseException) -> bool:
    torch: Any = sys.modules.get("torch")
    if (
        isinstance(error, MemoryError)
        or _errno(error) == errno.ENOMEM
        or (torch and isinstance(error, torch.OutOfMemoryError))
    ):
        return True
    # The CPU allocator raises a plain RuntimeError.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _is_lost_peer(error: BaseException) -> bool:
    """Whether a collective failed because another rank is gone: whatever ended that one is the cause of the attempt."""
    distributed: Any = sys.modules.get("torch.distributed")
    if isinstance(error, NoRendezvous) or (distributed and isinstance(error, distributed.DistError)):
        return True
    # gloo raises a plain RuntimeError, from gloo/transport/tcp/pair.cc.
    return isinstance(error, RuntimeError) and "gloo/transport/" in str(error)


def _print(record: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
