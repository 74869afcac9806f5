"""The folder of one node's Ray: on a local disk, with a short name, nobody else's, and gone when the node has ended.

    /tmp/stx-ray-<user>/<6 hex digits>/         Ray's
                        <6 hex digits>.owner    whose it is: processes.unique_id of a supervisor

A supervisor that is killed leaves its folder behind. Whoever makes the next one here removes those whose owner is gone;
one from another machine, or another container, may live, and is left alone.

Sockets lie in it, and a socket's path may have 107 characters, of which Ray takes 68.
"""

import contextlib
import os
import shutil
import stat
from pathlib import Path

from jobs import files, processes

_OWNER = ".owner"
_RAYS = len("/session_2026-11-21_17-08-34_123456_4194304/sockets/plasma_store.4194304")
_LONGEST = 107


class Unsafe(OSError):
    """A folder that Ray must not use."""


def base(root: Path) -> Path:
    """This user's folder of all clusters. /tmp is everybody's, so what is found there is looked at."""
    return root / f"stx-ray-{os.geteuid()}"


def make(root: Path) -> Path:
    """A new folder for one node; Unsafe says what is wrong with where it would be."""
    folder = base(root)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        _check(folder)
        _sweep(folder)
        made = folder / os.urandom(3).hex()
        if len(str(made)) + _RAYS > _LONGEST:
            over = len(str(made)) + _RAYS - _LONGEST
            raise Unsafe(f"{made}: {over} characters too long for a socket's path; say ray: {{temp_dir: /tmp}}")
        made.mkdir(mode=0o700)
        files.write(_note(made), processes.unique_id(processes.me()).encode())
    except FileExistsError as error:  # a file, or a link that leads nowhere
        raise Unsafe(f"{folder} is no folder of yours; {_cure(folder)}") from error
    return made


def remove(made: Path) -> None:
    """The whole of it; what cannot be removed stays, until the next one is made here."""
    with contextlib.suppress(OSError):
        if made.is_dir():
            shutil.rmtree(made)
        _note(made).unlink(missing_ok=True)


def _note(made: Path) -> Path:
    return made.with_name(made.name + _OWNER)


def _sweep(folder: Path) -> None:
    """Remove what supervisors that were killed have left behind."""
    for note in sorted(folder.glob(f"*{_OWNER}")):
        with contextlib.suppress(OSError, ValueError):
            if processes.is_gone((files.read(note) or b"").decode("ascii")):
                remove(note.with_suffix(""))


def _check(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise Unsafe(f"{folder} belongs to another user (number {found.st_uid}); {_cure(folder)}")
    mode = stat.S_IMODE(found.st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Unsafe(f"{folder} is open to others (mode {mode:o}); {_cure(folder)}")


def _cure(folder: Path) -> str:
    return f"have it removed, or say ray: {{temp_dir: DIR}} for a local disk where {folder.name} can be made"
