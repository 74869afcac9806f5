"""What to type next, as words that can be copied: quoted for a shell, and right whatever else the store holds."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from stx.coordinator.status import Line

ACCEPT_CODE = "--accept-code"


def stage(experiment: str, name: str) -> str:
    """A stage as one word. With its experiment: others may have one of its name."""
    return shlex.quote(f"{experiment}/{name}")


def submit(file: Path, *, sets: Sequence[str], cluster: str | None) -> str:
    """The submit of a file with the options that change what it does; console.next_commands adds the store."""
    options = [part for one in sets for part in ("--set", one)] + (["--cluster", cluster] if cluster else [])
    return shlex.join(["stx", "submit", str(file), *options])


def after_failure(experiment: str, line: Line) -> list[str]:
    """For a stage that failed. A checkpoint of other science code would be refused again after a mere retry."""
    name = stage(experiment, line.name)
    accept = f"stx submit FILE {ACCEPT_CODE}   (the same file: resumes with the new code)"
    return [f"stx logs {name} --failed", accept if ACCEPT_CODE in line.why else f"stx retry {name}"]
