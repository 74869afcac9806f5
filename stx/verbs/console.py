"""What a terminal sees: data on stdout, words for people on stderr, plain tables, and colour only where it is wanted.

No rich here: a pipe, a log file and `stx status` over ten thousand stages need columns, not boxes. Only the live
table (live.py) uses rich.
"""

import itertools
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from stx.errors import printable
from stx.verbs import columns
from stx.verbs.columns import Row

SCHEMA = 1
_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}
_from_cluster: list[str] = []  # at most one: the store that this process was given by a cluster file
_COLOUR = re.compile("(" + "|".join(re.escape(f"\033[{code}m") for code in ("0", *_STYLES.values())) + ")")


def out(text: str) -> None:
    """Data, on stdout."""
    sys.stdout.write(shown(text) + "\n")


def say(text: str = "") -> None:
    """Words for people, on stderr."""
    sys.stderr.write(shown(text) + "\n")
    sys.stderr.flush()


def shown(text: str) -> str:
    """What a terminal may see of a text: our own colours; any other control character, in a name or in a line of a log,
    is shown and not obeyed.
    """
    pieces = _COLOUR.split(text)
    pieces[::2] = [printable(piece) for piece in pieces[::2]]
    return "".join(pieces)


def out_json(record: Mapping[str, Any]) -> None:
    """A read's answer for programs, with the schema's number."""
    out(json.dumps({"schema": SCHEMA, **record}, indent=2, allow_nan=False))


def remember_store(folder: str) -> None:
    """The store is that of the cluster file: commands to copy that do not name the file must name the folder."""
    _from_cluster[:] = [folder]


def next_commands(*commands: str) -> None:
    """How every verb ends: what is useful now. A typed --store, or a cluster file's, is named: lines are copied."""
    for number, command in enumerate(commands):
        line = with_store(command, typed=sys.argv)
        say(styled("next: " if number == 0 else "      ", "dim", stream=sys.stderr) + line)


def with_store(command: str, *, typed: Sequence[str]) -> str:
    """`command` with the --store of the command line that was typed, before the remark in brackets; with the cluster
    file's where that decided and the command does not name the file.
    """
    values = [] if "--cluster" in command else list(_from_cluster)
    values += [word.removeprefix("--store=") for word in typed if word.startswith("--store=")]
    values += [value for word, value in itertools.pairwise(typed) if word == "--store"]
    if not values or "--store" in command:
        return command
    words, gap, remark = command.partition("   (")
    return f"{words} --store {shlex.quote(values[-1])}{gap}{remark}"


def coloured(stream: TextIO) -> bool:
    """A terminal, and nobody said NO_COLOR."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str, *, stream: TextIO) -> str:
    """Text in a colour, where the stream takes colours."""
    return f"\033[{_STYLES[style]}m{text}\033[0m" if style and coloured(stream) else text


def interactive() -> bool:
    """Whether a person is there to be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str) -> bool:
    """A yes or no; anything but yes is no."""
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def width_of(stream: TextIO) -> int:
    """Columns of a terminal; 0 elsewhere: a pipe or a file takes lines of any length."""
    return shutil.get_terminal_size().columns if stream.isatty() else 0


def lines(rows: Iterable[Row], *, stream: TextIO) -> str:
    """Rows as text, in colours where the stream takes them."""
    return "\n".join(styled(row.text, row.style, stream=stream) for row in rows)


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: frozenset[str] = frozenset(),
    styles: Sequence[str] = (),
    drop: Sequence[str] = (),
    stream: TextIO | None = None,
) -> str:
    """Aligned columns that fit a terminal: see columns.table. `styles` colours rows."""
    target = stream or sys.stdout
    found = columns.table(header, rows, right=right, styles=styles, width=width_of(target), drop=drop)
    return lines(found, stream=target)
