"""What happens to a process, and when: tickets, fault points, and the record of what happened.

A ticket is <folder>/NAME.ticket, a JSON file; the first process whose command line holds `program` takes it by rename:

    program    "stx.worker run" | "jobs.exec" | "stx.cli submit" | ...
    fault      kill     SIGKILL before, after or inside an operation (inside a write: half of its bytes are written)
               enospc, edquot, eio, estale, erofs     the operation fails with that error, and does nothing
               short    a write takes half of its bytes and says so
               stall    the operation blocks for `seconds`
               clock    from the operation on, the wall clock is off by `seconds`
    point      which one: points are counted from 1, before, inside and after every operation. A kill happens at that
               very point, every other fault at the first operation from that point on that can suffer it
    count      optional, 1: how many operations suffer it, one after the other: errors and short. `lasts_s` instead: all
               of them for so long. A file <folder>/over ends it, too
    under      optional: only operations on paths with this prefix count ($STX_FAULT_STORE, $STX_STORE, else anything)
    operation  optional: only this one: open write fsync rename replace link symlink unlink mkdir rmdir truncate touch
               spawn; or one that changes nothing and is no point otherwise: read (an open for reading) stat list
    match      optional: only operations on paths in which this regular expression is found

Two files are for all processes together. <folder>/stall holds seconds since the epoch: until then, and while the file
exists, every operation on the store blocks, also reading. <folder>/full: while it exists, whatever needs a new block or
a new file fails with ENOSPC (the blocks that a file has may be written, and names linked).

What happened is appended to <folder>/faults.jsonl: the ticket, `pid`, `when` (before, inside, after), `operation`,
`path`, `in_save`, and `at`, the point it happened at. If there is a folder <folder>/trace, every point of every process
is written to trace/<pid>.jsonl, whose first line is the command line.
"""

import errno
import itertools
import json
import os
import re
import signal
import sys
import threading
import time

ERRORS = {name: getattr(errno, name.upper()) for name in ("enospc", "edquot", "eio", "estale", "erofs")}
FULL = ("enospc", "edquot")
FAULTS = ("kill", *ERRORS, "short", "stall", "clock")
# The operations that can find a disk or a quota full; on a full disk, only those that must have a new block or inode.
NEEDS_SPACE = frozenset({"open", "write", "fsync", "rename", "replace", "link", "symlink", "mkdir", "spawn"})
NEEDS_BLOCK = frozenset({"open", "write", "symlink", "mkdir", "spawn"})
READS = frozenset({"read", "stat", "list"})
# What hits a checkpoint or a result while it is being written or published is "inside a save".
SAVE = re.compile(r"/(checkpoints|milestones|parts|payload)(/|$)|/artifact\.json|/\.artifact\.json\.")
NOWHERE = ("/dev/", "/proc/", "/sys/")
POLL_S = 0.02

real_stat, real_open, real_write, real_close = os.stat, os.open, os.write, os.close


def take(folder):
    """The ticket of this process, or None. Exactly one process gets each."""
    command = " ".join(sys.orig_argv)
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".ticket"):
            continue
        path = os.path.join(folder, name)
        try:
            with open(path) as stream:
                ticket = json.load(stream)
            if ticket["program"] not in command:
                continue
            os.rename(path, f"{path}.{os.getpid()}")
        except FileNotFoundError:
            continue
        if ticket["fault"] not in FAULTS:
            raise ValueError(f"{path}: no fault {ticket['fault']!r}; there are {', '.join(FAULTS)}")
        return ticket
    return None


class Injector:
    """Stands between this process and the operating system. Threads share one count; forked children suffer nothing."""

    def __init__(self, folder, *, ticket, clock):
        self._folder = os.path.abspath(folder)
        self._ticket = ticket or {"fault": None, "point": 0}
        self._clock = clock
        self._pid = os.getpid()
        self._points = itertools.count(1)
        once = self._ticket["fault"] in ("stall", "clock")
        self._left = 1 if once else self._ticket.get("count", 1)
        self._lasts_s = None if once else self._ticket.get("lasts_s")
        self._until = None
        self._recorded = False
        self._inside = threading.local()
        store = os.environ.get("STX_FAULT_STORE") or os.environ.get("STX_STORE") or ""
        self._store = _spellings(store)
        self._under = _spellings(self._ticket.get("under") or store)
        self._operation = self._ticket.get("operation")
        self._match = re.compile(self._ticket.get("match") or "")
        self._trace = self._open_trace()

    @property
    def inside(self):
        """Whether this thread is within an operation that is wrapped (an audit hook asks)."""
        return getattr(self._inside, "depth", 0) > 0

    def covers(self, path):
        """Whether operations on this path are the store's."""
        if path.startswith((*NOWHERE, self._folder)) or not path.startswith("/"):
            return False
        return path.startswith(self._store)

    def around(self, operation, path, run, *, grows=None, half=None):
        """Run one operation of the store between its points. `grows()`: whether it needs a block; `half()`: do half."""
        if not self.covers(path) or self.inside:
            return self._run(run)
        self._wait()
        if operation in NEEDS_BLOCK and self._is_there("full") and (grows is None or grows()):
            raise _error(errno.ENOSPC, operation, path)
        mine = self._is_mine(operation, path)
        at = self._point("before", operation, path, mine=mine)
        if mine:
            self._suffer(at, operation, path)
        if half is not None:
            at = self._point("inside", operation, path, mine=mine, half=half)
            if mine and self._ticket["fault"] == "short" and self._strikes(at, "inside", operation, path):
                return self._run(half)
        result = self._run(run)
        self._point("after", operation, path, mine=mine)
        return result

    def reading(self, operation, path, run):
        """Run an operation that changes nothing."""
        if not self.covers(path) or self.inside:
            return self._run(run)
        self._wait()
        if self._operation == operation and self._is_mine(operation, path):
            self._suffer(self._point("before", operation, path, mine=True), operation, path)
        return self._run(run)

    def _run(self, run):
        self._inside.depth = getattr(self._inside, "depth", 0) + 1
        try:
            return run()
        finally:
            self._inside.depth -= 1

    def _is_mine(self, operation, path):
        """Whether this operation counts for the ticket."""
        if self._ticket["fault"] is None or os.getpid() != self._pid or not path.startswith(self._under):
            return False
        return (self._operation is None or operation == self._operation) and bool(self._match.search(path))

    def _point(self, when, operation, path, *, mine, half=None):
        """Pass one fault point; its number, 0 if it does not count."""
        if self._trace is not None:
            _append(self._trace, {"when": when, "operation": operation, "path": path})
        if not mine:
            return 0
        at = next(self._points)
        if self._ticket["fault"] == "kill" and at == self._ticket["point"]:
            self._record(at, when, operation, path)
            if half is not None:
                self._run(half)
            os.kill(os.getpid(), signal.SIGKILL)
        return at

    def _suffer(self, at, operation, path):
        """What a ticket other than a kill does at the beginning of an operation."""
        fault = self._ticket["fault"]
        if fault in ("kill", "short") or (fault in FULL and operation not in NEEDS_SPACE | READS):
            return
        if self._strikes(at, "before", operation, path):
            if fault == "stall":
                time.sleep(self._ticket["seconds"])
            elif fault == "clock":
                self._clock.jump(self._ticket["seconds"])
            else:
                raise _error(ERRORS[fault], operation, path)

    def _strikes(self, at, when, operation, path):
        """Whether the fault happens to this operation; noted at the first."""
        if at < self._ticket["point"] or self._is_there("over"):
            return False
        if self._lasts_s is None:
            self._left -= 1
            if self._left < 0:
                return False
        else:
            self._until = self._until or time.monotonic() + self._lasts_s
            if time.monotonic() >= self._until:
                return False
        if not self._recorded:
            self._record(at, when, operation, path)
        return True

    def _record(self, at, when, operation, path):
        self._recorded = True
        happened = {"pid": os.getpid(), "at": at, "when": when, "operation": operation, "path": path}
        line = {**self._ticket, **happened, "in_save": bool(SAVE.search(path))}
        _append(os.path.join(self._folder, "faults.jsonl"), line)

    def _wait(self):
        """Block while the store stalls."""
        path = os.path.join(self._folder, "stall")
        while self._is_there("stall"):
            try:
                with open(path) as stream:
                    until = float(stream.read() or "inf")
            except (FileNotFoundError, ValueError):
                continue
            if self._clock.now() >= until:
                return
            time.sleep(POLL_S)

    def _is_there(self, name):
        try:
            real_stat(os.path.join(self._folder, name))
        except FileNotFoundError:
            return False
        return True

    def _open_trace(self):
        if not self._is_there("trace"):
            return None
        path = os.path.join(self._folder, "trace", f"{os.getpid()}.jsonl")
        _append(path, {"program": " ".join(sys.orig_argv)})
        return path


def _spellings(prefix):
    """A prefix as it was given, absolute and without symbolic links: descriptors know only the last one."""
    if not prefix:
        return ("/",)
    return tuple({os.path.abspath(prefix), os.path.realpath(prefix)})


def _error(number, operation, path):
    """As the real function raises it: one that takes a descriptor does not know the name of its file."""
    name = () if operation in ("write", "fsync") else (path,)
    return OSError(number, os.strerror(number), *name)


def _append(path, record):
    descriptor = real_open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        real_write(descriptor, json.dumps(record).encode() + b"\n")
    finally:
        real_close(descriptor)
