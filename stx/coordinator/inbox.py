"""Commands of people to a running coordinator: one file each in inbox/, carried out in the order of their names.

A file is removed after its command is in the journal. Should the coordinator die in between, the next one meets a name
that the journal already knows, and only removes the file.
"""

import re
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from jobs import files, typed
from stx import records
from stx.errors import StoreError
from stx.paths import ExperimentDir

Verb = Literal["cancel", "retry", "leave"]
_NAME = re.compile(r"\d{20}-[0-9a-f]{8}\.json")


@dataclass(frozen=True)
class Command:
    """cancel and retry are about `keys`; leave ends the coordinator and lets the jobs run on.

    take_over: a retry may also declare attempts of other experiments lost, which no machine can see from here.
    """

    verb: Verb
    keys: tuple[str, ...] = ()
    take_over: bool = False


@dataclass(frozen=True)
class Letter:
    """A command and its file."""

    path: Path
    command: Command

    @property
    def name(self) -> str:
        """What the journal knows it by."""
        return self.path.stem


def put(experiment: ExperimentDir, command: Command) -> None:
    """Leave a command for whoever drives the experiment, now or next."""
    with records.no_links():
        files.make_dir(experiment.inbox)
    # The number only sorts what people say one after the other, also when their clock jumps back in between; the
    # random part keeps two of them apart.
    waiting = max((int(name[:20]) for name in records.names(experiment.inbox) if _NAME.fullmatch(name)), default=0)
    name = f"{max(time.time_ns(), waiting + 1):020d}-{secrets.token_hex(4)}.json"
    records.publish(experiment.inbox / name, asdict(command))


def letters(experiment: ExperimentDir) -> list[Letter]:
    """The commands that wait, in order."""
    names = records.names(experiment.inbox)
    paths = [experiment.inbox / name for name in names if name.endswith(".json") and name[0] != "."]
    obeyed: set[int] = set()
    if paths and experiment.user.exists():  # others of the group may write here, and are not obeyed; root is
        obeyed = {experiment.user.stat().st_uid, 0}
    found = [_letter(path, obeyed=obeyed) for path in paths]
    return [letter for letter in found if letter is not None]


def _letter(path: Path, *, obeyed: set[int]) -> Letter | None:
    """The letter, if its writer is obeyed (none named: all are). One that is gone by now was carried out by whoever
    took the lease over.
    """
    try:
        if obeyed and path.stat().st_uid not in obeyed:
            return None
        record = records.find(path)
        with records.understood(path):
            return None if record is None else Letter(path, typed.build(Command, record))
    except FileNotFoundError:
        return None
    except StoreError as error:
        raise StoreError(f"not a command: {error.what}", where=str(path), hint="remove the file") from error
