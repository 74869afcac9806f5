"""Who drives an experiment: numbered leases lease/<N>, each made by link(2), the highest holds.

N is the fencing token: one link, one holder, so no two coordinators ever hold the same. The holder renews by rewriting
its own file with another beat; when it sees a higher N it has lost, and stops writing. A lease expires when its
contents did not change for its `lease_s` on the observer's own monotonic clock (no two machines' clocks are compared),
or at once when it was released or its process is gone from this machine. Files of older leases stay: a number is never
given twice.
"""

import contextlib
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs import files, processes
from stx import records
from stx.errors import LeaseHeld
from stx.paths import ExperimentDir

_NUMBER = re.compile(r"\d+")
RENEWALS = 4
POLL_S = 0.2

Clock = Callable[[], float]
Gone = Callable[[str], bool]
Contents = tuple[int, dict[str, Any] | None]


@dataclass(frozen=True)
class Holder:
    """Who holds the lease. `here`: its process lives on this machine; else only watching tells whether it lives."""

    token: int
    host: str
    pid: int
    here: bool


def _is_here(process: str) -> bool:
    """Whether a process would be seen from here if it existed: same machine, same boot."""
    here = processes.unique_id(processes.me())
    return process.split(":")[2:] == here.split(":")[2:]


def _is_gone(process: str) -> bool:
    """Whether it surely does not exist any more. False also when that cannot be known from here."""
    if not _is_here(process):
        return False
    pid, start_time = process.split(":")[:2]
    found = processes.look(int(pid))
    return found is None or found.start_time != int(start_time)


def holder(experiment: ExperimentDir, *, is_gone: Gone = _is_gone) -> Holder | None:
    """Who holds the lease as far as one look can tell: None if nobody did, it was released, or its process is gone."""
    token, record = _contents(experiment)
    if record is None or record["released"] or is_gone(record["process"]):
        return None
    owner = record["process"]
    return Holder(token=token, host=record["host"], pid=int(owner.split(":")[0]), here=_is_here(owner))


def was_released(experiment: ExperimentDir) -> bool:
    """Whether the last holder gave it back, and did not just vanish."""
    _, record = _contents(experiment)
    return record is not None and bool(record["released"])


def highest(experiment: ExperimentDir) -> int:
    """The highest token given so far; 0 if none was."""
    return max((int(name) for name in records.names(experiment.lease) if _NUMBER.fullmatch(name)), default=0)


class Observer:
    """Watches a lease over time. One look cannot tell a dead holder on another machine from a slow one."""

    def __init__(self, experiment: ExperimentDir, *, clock: Clock = time.monotonic, is_gone: Gone = _is_gone) -> None:
        self._experiment = experiment
        self._clock = clock
        self._is_gone = is_gone
        self._seen: Contents = (0, None)
        self._since = clock()

    def expired(self) -> bool:
        """Whether nobody holds the lease now."""
        return self.free() is not None

    def free(self) -> int | None:
        """The highest token if nobody holds it now, else None. Only the number after this one may be taken."""
        contents = _contents(self._experiment)
        token, record = contents
        if record is None or record["released"] or self._is_gone(record["process"]):
            return token
        now = self._clock()
        if self._seen != contents:
            self._seen, self._since = contents, now
        return token if now - self._since >= float(record["lease_s"]) else None


class Lease:
    """A lease that was ours when it was made; `hold` tells whether it still is."""

    def __init__(
        self, experiment: ExperimentDir, *, token: int, lease_s: float, clock: Clock, me: str, code: str
    ) -> None:
        self.token = token
        self._experiment = experiment
        self._lease_s = lease_s
        self._clock = clock
        self._me = me
        self._code = code
        self._beat = 0
        self._renewed = clock()

    def hold(self) -> None:
        """Call before everything that writes: LeaseHeld when somebody took over; renews when it is time."""
        if highest(self._experiment) != self.token:
            raise self._lost()
        if self._clock() - self._renewed >= self._lease_s / RENEWALS:
            self._beat += 1
            self._write(released=False)
            self._renewed = self._clock()

    def release(self) -> None:
        """Let the next coordinator start at once. On a full or broken disk it will see that our process is gone."""
        with contextlib.suppress(OSError):
            if highest(self._experiment) == self.token:
                self._write(released=True)

    def _write(self, *, released: bool) -> None:
        record = content(self._me, beat=self._beat, lease_s=self._lease_s, released=released, code=self._code)
        records.write(_file(self._experiment, self.token), record)

    def _lost(self) -> LeaseHeld:
        now = holder(self._experiment)
        by = f"{now.host}, process {now.pid}" if now else "another one"
        return LeaseHeld("another coordinator took over; this one stops", where=str(self._experiment.path), hint=by)


def acquire(
    experiment: ExperimentDir,
    *,
    lease_s: float,
    clock: Clock = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    me: str | None = None,
    is_gone: Gone = _is_gone,
    code: str = "",
) -> Lease:
    """Take the lease. A holder that may be dead is watched for as long as its lease lasts; LeaseHeld if it lives.
    `code` is the digest of the sources that the holder may run from: they stay while it holds.
    """
    me = me or processes.unique_id(processes.me())
    experiment.path.mkdir(parents=True, exist_ok=True)
    with records.no_links():
        files.make_dir(experiment.lease)
    observer = Observer(experiment, clock=clock, is_gone=is_gone)
    seen = _contents(experiment)
    while (free := observer.free()) is None:
        if _contents(experiment) != seen:
            raise _held(experiment)
        sleep(POLL_S)
    lease = take(experiment, token=free + 1, lease_s=lease_s, clock=clock, me=me, code=code)
    if lease is None:
        raise _held(experiment)
    return lease


def take(
    experiment: ExperimentDir, *, token: int, lease_s: float, clock: Clock, me: str, code: str = ""
) -> Lease | None:
    """Link this number; None when somebody was first. It must be the one after a token that was seen to be free: the
    highest plus one, read anew, would take the lease from a holder that came in between.
    """
    record = content(me, beat=0, lease_s=lease_s, released=False, code=code)
    if not records.publish(_file(experiment, token), record):
        return None
    return Lease(experiment, token=token, lease_s=lease_s, clock=clock, me=me, code=code)


def content(me: str, *, beat: int, lease_s: float, released: bool, code: str) -> dict[str, Any]:
    """What a lease file says. `me` is the process, under a name that is never given twice."""
    said = {"process": me, "host": socket.gethostname(), "beat": beat, "lease_s": lease_s, "released": released}
    return said | {"code": code}


def code_in_use(experiment: ExperimentDir) -> str:
    """The digest of the sources that whoever may hold the lease may run from; nothing when surely nobody holds it."""
    _, record = _contents(experiment)
    if record is None or record["released"] or _is_gone(record["process"]):
        return ""
    return str(record.get("code", ""))


def _contents(experiment: ExperimentDir) -> Contents:
    """The highest token and its record; StoreError names one that stx did not write."""
    token = highest(experiment)
    record = records.find(_file(experiment, token)) if token else None
    if record is not None:
        with records.understood(_file(experiment, token)):
            pid, start_time, *_ = str(record["process"]).split(":")
            _ = int(pid), int(start_time), float(record["lease_s"]), record["host"], record["released"]
    return token, record


def _file(experiment: ExperimentDir, token: int) -> Path:
    return experiment.lease / str(token)


def _held(experiment: ExperimentDir) -> LeaseHeld:
    now = holder(experiment)
    where = f"{now.host}, process {now.pid}" if now else "unknown"
    return LeaseHeld(
        f"another coordinator drives this experiment ({where})",
        where=str(experiment.path),
        hint="watch it with `stx status --watch`, or end it with Ctrl-C where it runs",
    )
