"""Errors for people: every one says where, what, and what to do.

    StxError                exit 1   something we did not foresee but can explain
      ConfigError           exit 2   the experiment or cluster file, a flag, an option
        PlanError           exit 2   the file is well formed, but the experiment it describes cannot be run
      StoreError            exit 2   the store: no permission, no hard links, a malformed record
      DataError             exit 3   a shard, an image, a weights file: corrupt, truncated, of another experiment
      StageFailed           exit 3   a stage ended FAILED; names it and where its log is
      BackendError          exit 4   a scheduler cannot be reached or refuses
      LeaseHeld             exit 6   another coordinator drives this experiment

An assertion is for our own invariants and keeps its traceback; an StxError is printed without one.
"""

import re
from collections.abc import Callable


def install(extra: str) -> str:
    """A hint: how what an extra of ours brings is installed."""
    where = "in the folder of the sources (the stx of PyPI is another program)"
    return f"pip install -c constraints.txt '.[{extra}]' {where}"


# What moves a cursor, turns the direction of writing, or cannot be encoded: it is in no name that people would give.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Text that others may have chosen, as a terminal may see it: control characters are shown, not obeyed."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class StxError(Exception):
    """`where`: a place (`a.yaml:31: stages.b.c = 3`). `what`: one sentence. `hint`: what is valid, or what to do."""

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        return "\n  ".join(printable(part) for part in (self.where, self.what, self.hint) if part)


class ConfigError(StxError):
    """The experiment file, the cluster file or a flag is wrong."""

    exit_code = 2


class PlanError(ConfigError):
    """The options are valid one by one, but not together."""


class StoreError(StxError):
    """The store cannot be used, or holds a record nobody should have written."""

    exit_code = 2


class DataError(StxError):
    """A data or weights file is corrupt, truncated, or not the one that was promised."""

    exit_code = 3


class StageFailed(StxError):
    """A stage ended FAILED."""

    exit_code = 3


class BackendError(StxError):
    """A scheduler cannot be reached, or refuses a request. `later`: it may take the same request another time, and
    will once it is `cured`, if there is a way to know that without asking.
    """

    exit_code = 4
    later = False
    cured: Callable[[], bool] | None = None


class LeaseHeld(StxError):
    """Another coordinator holds the lease of this experiment."""

    exit_code = 6
