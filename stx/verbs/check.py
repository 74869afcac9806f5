"""What `stx doctor` finds: one line a check, with what to do where something is wrong."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum


class Level(StrEnum):
    """FAIL: something will not work. WARN: it works, and not as well or as surely as it could."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Check:
    """One finding: `name` is what was looked at, `hint` what to do about it."""

    name: str
    level: Level
    words: str
    hint: str = ""

    def dump(self) -> dict[str, str]:
        """Its JSON."""
        return asdict(self)


def good(name: str, words: str) -> Check:
    """Nothing to do."""
    return Check(name, Level.OK, words)


def warn(name: str, words: str, hint: str) -> Check:
    """It works, but."""
    return Check(name, Level.WARN, words, hint)


def fail(name: str, words: str, hint: str) -> Check:
    """It does not work."""
    return Check(name, Level.FAIL, words, hint)


def guarded(name: str, look: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """The findings of one look; what the system refuses it is a finding, too."""
    try:
        yield from look()
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        yield fail(name, f"{place}{error.strerror or error}", "mend that, or choose another place")
