"""Who may write into a store, and whose its things are.

private   a store's directory as mkdir leaves it: its owner writes, others read what their umask and its modes allow
shared    a directory that is setgid and writable by its group (mkdir; chgrp GROUP; chmod 3770): everything made inside
          is the group's and writable by it, whatever the umask of who makes it (jobs.files.share)
refused   a directory that anyone may write into: whoever plants files there decides what your jobs read and run
told      a directory above it that anyone may write into, not sticky as /tmp is: whoever is on this machine may put
          another store in its place. Kubernetes' emptyDir and WSL's mounts are so, where nobody else is

The mode of the store's own directory decides, at every opening: nothing else records it. Stages are common property:
a finished one serves all, an attempt of another member's is waited for. An experiment is its user's alone: user.json,
published at its first submit, says who that is. Numbers of users are compared, never names.
"""

import grp
import os
import pwd
import stat
from pathlib import Path

from jobs import files
from stx import records
from stx.errors import ConfigError, StoreError
from stx.paths import ExperimentDir, Store

SHARE = "mkdir STORE; chgrp GROUP STORE; chmod 3770 STORE"


def open_store(store: Store) -> None:
    """StoreError for a store that others could have tampered with; from here on, what we make follows its mode."""
    root = store.root.resolve()  # the store itself may be a link; what is in it may not
    try:
        _refuse_writable(root)
        if root.is_dir():
            for name in records.names(root):
                _refuse_writable_inside(root / name)
            files.share(root)
    except PermissionError as error:
        hint = "choose another --store, or ask its owner for permission to read"
        raise StoreError("cannot be read: Permission denied", where=str(error.filename), hint=hint) from error


def exposed(store: Store) -> tuple[str, str] | None:
    """What is wrong above a store that anyone may move away, and what to do: it is for people, nothing is refused."""
    for folder in store.root.resolve().parents:
        try:
            mode = folder.stat().st_mode
        except OSError:
            continue  # not made yet; or nobody may look
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            what = (
                f"anyone on this machine may put another store in its place: {folder} has mode {stat.S_IMODE(mode):o}"
            )
            return what, f"chmod o-w {folder}, or chmod +t {folder}; or another --store; where you are alone, leave it"
    return None


def _refuse_writable(root: Path) -> None:
    try:
        mode = root.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return  # not made yet
    if mode & stat.S_IWOTH:
        raise _writable(root, mode, hint=f"chmod o-w {root}; to share it with a group: chmod 3770 {root}")


def _refuse_writable_inside(folder: Path) -> None:
    try:
        mode = folder.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode) and mode & stat.S_IWOTH:
        raise _writable(folder, mode, hint=f"chmod -R o-w {folder}, after a look at what is in it")


def _writable(folder: Path, mode: int, *, hint: str) -> StoreError:
    what = f"anyone may write here (mode {stat.S_IMODE(mode):o}), and so decide what your jobs read and run"
    return StoreError(what, where=str(folder), hint=hint)


def user_name(number: int) -> str:
    """What a user is called on this machine."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def group_name(number: int) -> str:
    """What a group is called on this machine."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def me() -> dict[str, object]:
    """This user, for records."""
    return {"uid": os.geteuid(), "name": user_name(os.geteuid())}


def other(record: object) -> str:
    """The name of the user in a record, or nothing if it is us, or if it names none."""
    if not isinstance(record, dict) or record.get("uid") in (None, os.geteuid()):
        return ""
    return str(record.get("name"))


def holder(experiment: ExperimentDir) -> str:
    """The other user whose experiment this is, or nothing."""
    return other(records.find(experiment.user))


def refuse_other(experiment: ExperimentDir, *, hint: str) -> None:
    """ConfigError if the experiment is another user's."""
    theirs = holder(experiment)
    if theirs:
        raise ConfigError(f"this experiment is {theirs}'s", where=str(experiment.path), hint=hint)


def claim(experiment: ExperimentDir) -> None:
    """Make the experiment ours, unless somebody was first."""
    if records.find(experiment.user) is None:
        records.publish(experiment.user, me())


def my_number(folder: Path) -> int:
    """Whose a file is that we make there: a file server may map users (root_squash, all_squash)."""
    probe = files.new_temp(folder / "owner")
    probe.mkdir()
    try:
        return probe.stat().st_uid
    finally:
        probe.rmdir()
