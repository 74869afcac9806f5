"""Files that Python opens without os.open (open, Path.open, Path.write_bytes), and output that goes into the store.

Those that are opened for writing under the store get a raw layer that goes through os.open, os.write and os.ftruncate,
so they have fault points like all others. Out of reach: what C and Rust write by themselves, the stack dumps of
faulthandler, and what a program of the user's writes.
"""

import builtins
import io
import os
import sys

from injection.operations import where

REAL_OPEN = builtins.open


class _Raw(io.FileIO):
    """A FileIO whose every system call that changes the file is one of `os`."""

    def write(self, data):
        return os.write(self.fileno(), data)

    def truncate(self, size=None):
        size = self.tell() if size is None else size
        os.ftruncate(self.fileno(), size)
        return size


def install(injector):
    """Wrap open, and the standard output and error that lead into the store."""

    def call(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
        options = {"encoding": encoding, "errors": errors, "newline": newline}

        def real():
            return REAL_OPEN(file, mode, buffering, closefd=closefd, opener=opener, **options)

        if not injector.covers(path := where(file)):
            return real()
        if set(mode) & set("wax+"):
            return _writer(file, mode, buffering, closefd=closefd, opener=opener or _open, **options)
        return real() if isinstance(file, int) else injector.reading("read", path, real)

    builtins.open = io.open = call
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and injector.covers(where(stream.fileno())):
            raw = _Raw(stream.fileno(), "w", closefd=False)
            wrapped = io.TextIOWrapper(
                raw if stream.write_through else io.BufferedWriter(raw),  # as the interpreter makes them
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, wrapped)
            setattr(sys, f"__{name}__", wrapped)


def _open(path, flags):
    return os.open(path, flags, 0o666)


def _writer(file, mode, buffering, *, closefd, opener, encoding, errors, newline):
    letters = "".join(letter for letter in mode if letter not in "bt")
    raw = _Raw(file, letters, closefd=closefd, opener=None if isinstance(file, int) else opener)
    if buffering == 0:
        return raw
    size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
    buffer = io.BufferedRandom(raw, size) if "+" in mode else io.BufferedWriter(raw, size)
    if "b" in mode:
        return buffer
    return io.TextIOWrapper(buffer, encoding, errors, newline, line_buffering=buffering == 1)
