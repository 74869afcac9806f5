"""Runs the program of `on_event`, once for each notice, with its JSON on standard input.

It never holds the coordinator up: programs run beside it, a few at a time, each for at most LIMIT_S; what they print
and how they end is in experiments/<name>/on_event.log. A program that fails is logged and not run again.

At least once: notices/<name>.json is written when the program has ended, and a coordinator that is killed before that
leaves the notice to the next one, under the same `id`. Whoever must not be told twice remembers ids.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs import files
from stx import records
from stx.coordinator.notices import Notice, Teller
from stx.coordinator.state import State
from stx.paths import ExperimentDir, Store

LIMIT_S = 30.0
GRACE_S = 2.0
AT_ONCE = 4
POLL_S = 0.05

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Running:
    """A program that was started, and when its time is over."""

    notice: Notice
    child: "subprocess.Popen[bytes]"
    kill_at: float


class Messenger:
    """Tells the notices of one experiment, those that were not told before."""

    def __init__(self, argv: Sequence[str], *, store: Store, experiment: ExperimentDir, limit_s: float) -> None:
        self._argv = list(argv)
        self._experiment = experiment
        self._limit_s = limit_s
        self._teller = Teller(store)
        self._met: set[str] = set()
        self._waiting: deque[Notice] = deque()
        self._running: list[Running] = []

    def tell(self, state: State) -> None:
        """Take up what is new, start what may start, collect what has ended. Returns at once and never raises OSError:
        nobody's mail may end an experiment.
        """
        for notice in self._teller.look(state):
            if notice.name not in self._met:
                self._met.add(notice.name)
                if not self._experiment.notice(notice.name).exists():
                    self._waiting.append(notice)
        self._advance()

    def finish(self) -> None:
        """Wait for what is still to be told, a little longer than one program may take."""
        until = time.monotonic() + self._limit_s + GRACE_S
        while (self._waiting or self._running) and time.monotonic() < until:
            self._advance()
            time.sleep(POLL_S)
        self.end()

    def end(self) -> None:
        """End what still runs and tell no more; the next coordinator tells it."""
        self._waiting.clear()
        for one in self._running:
            _kill(one.child)
        self._running.clear()

    def _advance(self) -> None:
        for one in list(self._running):
            code = one.child.poll()
            if code is None and time.monotonic() >= one.kill_at:
                _kill(one.child)
                code = one.child.returncode
                self._log(f"{one.notice.name}: took longer than {self._limit_s:g} s, ended")
            if code is not None:
                self._running.remove(one)
                self._told(one.notice, code)
        while self._waiting and len(self._running) < AT_ONCE:
            self._start(self._waiting.popleft())

    def _start(self, notice: Notice) -> None:
        try:
            with tempfile.TemporaryFile() as letter, self._output() as output:
                letter.write(json.dumps(notice.record).encode() + b"\n")
                letter.seek(0)
                child = subprocess.Popen(
                    self._argv, stdin=letter, stdout=output, stderr=output, cwd="/", start_new_session=True
                )
        except OSError as error:
            self._log(f"{notice.name}: {self._argv[0]} cannot be started: {error}")
            self._told(notice, None)
            return
        self._running.append(Running(notice, child, time.monotonic() + self._limit_s))

    @contextlib.contextmanager
    def _output(self) -> Iterator[int]:
        """The log; nowhere when it cannot be written."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        try:
            descriptor = os.open(self._experiment.event_log, flags, files.MODE)
        except OSError:
            descriptor = os.open(os.devnull, os.O_WRONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _told(self, notice: Notice, code: int | None) -> None:
        if code:
            self._log(f"{notice.name}: the program ended with code {code}")
        try:
            path = self._experiment.notice(notice.name)
            files.make_dir(path.parent)
            records.publish(path, notice.record | {"code": code})
        except OSError as error:
            logger.warning("cannot record that a notice was told name=%s error=%s", notice.name, error)

    def _log(self, text: str) -> None:
        logger.warning("on_event %s", text)
        with contextlib.suppress(OSError), self._output() as descriptor:
            files.write_all(descriptor, f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}\n".encode())


def _kill(child: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


@contextlib.contextmanager
def messenger(
    argv: Sequence[str] | None, *, store: Store, experiment: ExperimentDir, limit_s: float = LIMIT_S
) -> Iterator[Messenger | None]:
    """A messenger for the length of a block, or none. What is still to be told at its end is waited for; after an error
    it is left to the next coordinator.
    """
    if argv is None:
        yield None
        return
    root = Store(Path(store.root).absolute())
    one = Messenger(argv, store=root, experiment=experiment, limit_s=limit_s)
    try:
        yield one
        one.finish()
    finally:
        one.end()
