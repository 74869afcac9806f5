"""Two calls of prctl(2) that tie processes together. Standard library only."""

import ctypes
import functools
import os
import signal

_PDEATHSIG, _CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def adopt() -> None:
    """Be the parent of whatever our descendants leave behind, which would be init's else."""
    _set(_CHILD_SUBREAPER, 1)


def end_with_parent(parent: int) -> None:
    """Get a SIGKILL when the thread that started this process ends: called in the child, before exec(2). `parent`: who
    started it, which may have ended already.
    """
    _set(_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _set(option: int, value: int) -> None:
    if _libc().prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
