"""Whether the node that a scheduler gave is fit for the job, looked at before a rank starts. Standard library only.

    claim     the attempt is seen here, and it is the job's own: else the store is not mounted, or another one is
    cores     at least as many as the ranks that start here were promised, by the affinity that the node gave us
    memory    the limit of our cgroup, and what the machine has available, once per node
    store     a file can be written, renamed and linked, once per node
    clock     compared with the file server's, once per node

What fails leads to another attempt elsewhere. No clock is acted on but one that two others contradict: whoever wrote
the intent noted the time, and the file server dated it. Where these two agree and the node is an hour away from them,
it is the node; where they do not, it may be the server, and a line in the log is all. Real nodes with such a clock
rarely get jobs at all: munge refuses what is five minutes away.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jobs import files, memory, outcome, typed
from jobs.files import AttemptDir
from jobs.spec import Cause, JobSpec, Resources

Tell = Callable[[str], None]

SEEN_WITHIN_S = 30.0  # NFS shows a new folder late, where it was looked for before
ENOUGH = 0.9  # of the memory asked for: a machine's own programs take some of what its scheduler hands out
SKEW_TOLD_S, SKEW_WRONG_S = 300.0, 3600.0


@dataclass(frozen=True)
class Unfit:
    """Why no rank may start here: `cause` is NODE, or NO_SPACE where the store is full."""

    cause: Cause
    message: str


def missing_claim(attempt: AttemptDir, *, tag: str, within_s: float = SEEN_WITHIN_S) -> str | None:
    """Why this node does not see the attempt that the job was submitted for; None if it does."""
    until = time.monotonic() + within_s
    while (words := _not_seen(attempt, tag=tag)) and time.monotonic() < until:
        time.sleep(0.5)
    return words


def _not_seen(attempt: AttemptDir, *, tag: str) -> str | None:
    try:
        data = files.read(attempt.intent)
        if data is None or not attempt.path.is_dir():
            return f"{attempt.path} is not to be seen here: is its store mounted?"
        found = typed.mapping(data).get("tag")
    except OSError as error:
        return f"{attempt.intent} cannot be read here: {error.strerror}"
    except ValueError:
        return None  # damaged: that is told where it is used
    return None if found == tag else f"{attempt.path} is here an attempt of {found}, and this job is {tag}"


def unfit(job: JobSpec, attempt: AttemptDir, *, ranks: Sequence[int], tell: Tell) -> Unfit | None:
    """Look at everything but the claim; `ranks` are those that start here, `tell` writes a line into the log."""
    words = few_cores(job.resources, ranks=len(ranks), has=len(os.sched_getaffinity(0)))
    if words:
        return Unfit(Cause.NODE, words)
    if not any(number % job.resources.ranks_per_node == 0 for number in ranks):
        return None  # the node's first rank looks at the rest for all: its siblings use memory already
    words = little_memory(job.resources, available_gb=memory.available_gb(), limit_gb=memory.limit_gb())
    return Unfit(Cause.NODE, words) if words else _store(attempt, tell=tell)


def few_cores(size: Resources, *, ranks: int, has: int) -> str | None:
    """`has`: how many cores our affinity holds."""
    wanted = ranks * size.cpus_per_rank
    if has >= wanted:
        return None
    return f"{ranks} ranks x {size.cpus_per_rank} cores = {wanted} were asked for, and this node gives {has}"


def little_memory(size: Resources, *, available_gb: float | None, limit_gb: float | None) -> str | None:
    """What nobody can tell is None."""
    enough = ENOUGH * size.mem_gb
    if limit_gb is not None and limit_gb < enough:
        return f"{size.mem_gb:g} GB of memory were asked for, and the job's limit on this node is {limit_gb:.1f} GB"
    if available_gb is not None and available_gb < enough:
        return f"{size.mem_gb:g} GB of memory were asked for, and this node has {available_gb:.1f} GB available"
    return None


def _store(attempt: AttemptDir, *, tell: Tell) -> Unfit | None:
    """Write, rename, link; and on the way see what the file server's clock says."""
    probe = files.new_temp(attempt.path / "probe")
    twin = probe.with_name(f"{probe.name}-link")
    try:
        try:
            files.write(probe, b"")
            files.write(probe, b"seen")
            if not files.publish(twin, b"seen") or files.read(twin) != b"seen":
                return Unfit(Cause.NODE, f"what is written in {attempt.path} does not come back")
            skew_s, server_s = probe.stat().st_mtime - time.time(), _server_skew(attempt)
        finally:
            for path in (probe, twin):
                path.unlink(missing_ok=True)
    except OSError as error:
        full = outcome.cause_of(error.errno) is Cause.NO_SPACE
        words = f"{attempt.path} cannot be written here: {error.strerror}"
        return Unfit(Cause.NO_SPACE if full else Cause.NODE, words)
    return _clock(skew_s, server_s, tell=tell)


def _clock(skew_s: float, server_s: float | None, *, tell: Tell) -> Unfit | None:
    if words := wrong_clock(skew_s, server_s):
        return Unfit(Cause.NODE, words)
    if abs(skew_s) >= SKEW_TOLD_S:
        tell(f"the file server's clock differs from this node's by {skew_s:.0f} s; nothing acts on it")
    return None


def wrong_clock(skew_s: float, server_s: float | None) -> str | None:
    """`skew_s`: the file server's clock less this node's; `server_s`: less the submitter's, None if not known."""
    if abs(skew_s) < SKEW_WRONG_S or server_s is None or abs(server_s) >= SKEW_TOLD_S:
        return None
    return f"this node's clock is {abs(skew_s):.0f} s {'behind' if skew_s > 0 else 'ahead of'} the file server's"


def _server_skew(attempt: AttemptDir) -> float | None:
    """When the file server says that the intent was written, less what its writer says."""
    try:
        said = typed.mapping(files.read(attempt.intent) or b"{}").get("time")
    except ValueError:
        return None
    return attempt.intent.stat().st_mtime - said if isinstance(said, float) else None
