"""What a supervisor keeps of the process that started it: nothing that it inherits by chance; of a Ray actor one end of
a socket, whose other end only that actor has. Standard library only.

    jobs.exec --ray --watch-fd N <attempt dir>

    from us   `pid P` once we are on our own, `code C` at the end: the exit code
    closed    each end sees so that the other process is gone, however it went
"""

import contextlib
import os
from pathlib import Path

LOOK_S = 0.5


class Parent:
    """The actor at the other end of the socket that is our `descriptor`: process `pid`."""

    def __init__(self, descriptor: int) -> None:
        self.pid = os.getppid()
        self._line = descriptor
        os.set_blocking(descriptor, False)
        os.set_inheritable(descriptor, False)  # a rank that held it would seem to be us

    def leave(self) -> None:
        """Go on as a child of nobody, in a session of our own: a Ray worker that exits kills its children."""
        if os.fork():
            os._exit(0)
        os.setsid()
        self.tell(f"pid {os.getpid()}")

    def tell(self, words: str) -> None:
        """Say a line, if there is still somebody."""
        with contextlib.suppress(OSError):
            os.write(self._line, f"{words}\n".encode())

    def is_gone(self) -> bool:
        """Whether the other process has ended, or has let us go."""
        try:
            return not os.read(self._line, 1)  # it never says anything
        except BlockingIOError:
            return False
        except OSError:
            return True


def close_inherited(*, keep: int | None = None) -> None:
    """Nobody waits for a pipe or a lock that we hold without knowing: the submitter may live in a shell pipeline."""
    for entry in list(Path("/proc/self/fd").iterdir()):
        if int(entry.name) > 2 and int(entry.name) != keep:
            with contextlib.suppress(OSError):  # the listing's own descriptor is gone by now
                os.close(int(entry.name))
