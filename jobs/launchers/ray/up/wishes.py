"""Signals as wishes: a handler only notes which one came, and whoever waits wakes. Standard library only."""

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from types import FrameType

END = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)


class Wishes:
    """The last signal that came, if one did, and a pause that ends with the next."""

    def __init__(self, wake: int) -> None:
        self._wake = wake
        self.came: signal.Signals | None = None

    def pause(self, seconds: float) -> None:
        """Sleep, but not through a signal, or the end of a child."""
        if select.select([self._wake], [], [], seconds)[0]:
            os.read(self._wake, 4096)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = signal.Signals(number)

    def install(self) -> None:
        """The handlers of this process."""
        for number in END:
            signal.signal(number, self._note)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # it only wakes us
        for number in (signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {*END, signal.SIGUSR1})


@contextlib.contextmanager
def heard() -> Iterator[Wishes]:
    """Handlers, for the rest of the process."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    wishes = Wishes(reading)
    wishes.install()
    try:
        yield wishes
    finally:
        signal.set_wakeup_fd(-1)
