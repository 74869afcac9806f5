"""Completion of the command line in bash, zsh and fish: verbs and options, and the names that a store has.

A shell asks the hidden verb `stx complete LINE`, LINE being what stands before the cursor, and gets lines of
VALUE<tab>HELP; <tab>files and <tab>folders ask the shell for its own. Whatever goes wrong completes nothing. Graphs are
read as plain JSON, because a person waits for it between two keys.
"""

import contextlib
import functools
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stx import named, records
from stx.errors import ConfigError, StoreError
from stx.paths import Store
from stx.verbs.select import experiment_names, store_root

SCRIPTS = Path(__file__).parent / "shells"
# as in stx.config.cluster, whose import would take longer than the answer
CLUSTERS = Path(__file__).parents[1] / "config" / "clusters"
FILES, FOLDERS = "\tfiles", "\tfolders"
MANY = 200  # more points than these are offered once the name of their stage and its colon stand there


@dataclass(frozen=True)
class Stage:
    """A stage of an experiment that was submitted."""

    experiment: str
    name: str
    kind: str


def script(shell: str) -> str:
    """What a shell has to evaluate."""
    known = sorted(path.stem for path in SCRIPTS.glob("*.sh"))
    if shell not in known:
        raise named.unknown(shell, known, what="no completion for this shell", where=f"stx completion {shell}")
    return (SCRIPTS / f"{shell}.sh").read_text()


def complete(group: Any, line: str) -> list[str]:
    """The answer for a line. `group` is the command tree: commands by name, each with its parameters."""
    *typed, word = split(line)
    while typed and re.match(r"\w+=", typed[0]):  # assignments before the command
        typed = typed[1:]
    with contextlib.suppress(StoreError, ConfigError, OSError):
        return sorted(set(_candidates(group, typed[1:], word)))
    return []


def split(line: str) -> list[str]:
    """The words of a line as a shell sees them; the last one is the one at the cursor, perhaps empty, perhaps with a
    quote that is still open.
    """
    for end in ("", '"', "'"):
        with contextlib.suppress(ValueError):
            return [word.replace("\0", "") for word in shlex.split(f"{line}\0{end}")]
    return [""]


def _candidates(group: Any, typed: Sequence[str], word: str) -> Iterator[str]:
    command = group.commands.get(typed[0]) if typed else None
    if command is None or command.hidden:
        if not typed:
            shown = {name: one for name, one in group.commands.items() if not one.hidden}
            yield from (f"{name}\t{_first_line(one.help)}" for name, one in shown.items() if name.startswith(word))
        return
    if getattr(command, "commands", None):  # a verb with verbs of its own
        yield from _candidates(command, typed[1:], word)
        return
    options = {name: one for one in command.params for name in (*one.opts, *one.secondary_opts) if name[0] == "-"}
    place = Store(store_root(_value_of("--store", typed)))
    name, equals, value = word.partition("=")
    asked = options.get(typed[-1])
    if asked is not None and not asked.is_flag and len(typed) > 1:
        yield from _values(typed[-1], word, place)
    elif equals and name in options:
        yield from (f"{name}={one}" if one[0] != "\t" else one for one in _values(name, value, place))
    elif word.startswith("-"):
        told = ((flag, one) for flag, one in options.items() if flag.startswith(word))
        yield from (f"{flag}\t{_first_line(one.help)}" for flag, one in told)
    else:
        yield from _arguments(command, typed[1:], word, options=options, place=place)


def _arguments(
    command: Any, typed: Sequence[str], word: str, *, options: Mapping[str, Any], place: Store
) -> Iterator[str]:
    """The values of the positional parameter that comes next."""
    before = ["", *typed]
    values = [
        one
        for one, last in zip(typed, before, strict=False)
        if one[0:1] != "-" and (last not in options or options[last].is_flag)
    ]
    positional = [one.name for one in command.params if one.param_type_name == "argument"]
    if len(values) < len(positional):
        yield from _values(positional[len(values)], word, place)


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0].replace("\t", " ")


def _value_of(option: str, typed: Sequence[str]) -> str | None:
    """The value that was typed for an option, if it was."""
    for number, word in enumerate(typed):
        if word == option and number + 1 < len(typed):
            return os.path.expanduser(typed[number + 1])  # noqa: PTH111 - a store is a path or ~/path, as text
        if word.startswith(f"{option}="):
            return os.path.expanduser(word.partition("=")[2])  # noqa: PTH111
    return None


def _values(parameter: str, word: str, place: Store) -> Iterator[str]:
    """What may stand for a parameter: an option as it is typed, or an argument by its name."""
    find = VALUES.get(parameter)
    if find is not None:
        yield from (one for one in find(word, place) if one.startswith((word, "\t")))


def _experiments(word: str, place: Store) -> Iterator[str]:
    yield from (f"{name}\texperiment" for name in experiment_names(place))


def _stages(word: str, place: Store) -> Iterator[str]:
    """Names of stages, of points where they are not too many, and both after EXPERIMENT/."""
    head = word.rpartition("/")[0]
    found = [one for name in ([head] if head else experiment_names(place)) for one in _read(place, name)]
    before = f"{head}/" if head else ""
    points = [one for one in found if f"{before}{one.name}".startswith(word)]
    told = points if len(points) <= MANY or ":" in word else []
    yield from (f"{before}{one.name}\t{one.kind} of {one.experiment}" for one in told)
    yield from (f"{before}{one.name.partition(':')[0]}\t{one.kind}" for one in points if one not in told)


def _patterns(word: str, place: Store) -> Iterator[str]:
    """Whatever a pattern may name: experiments, stages, points, and the stage of a sweep for all its points."""
    yield from _experiments(word, place)
    yield from _stages(word, place)
    sweeps = {
        one.name.partition(":")[0] for name in experiment_names(place) for one in _read(place, name) if ":" in one.name
    }
    yield from (f"{name}\tsweep" for name in sweeps)


def _runs(word: str, place: Store) -> Iterator[str]:
    yield from (line for line in _stages(word, place) if line.partition("\t")[2].startswith("train"))


@functools.cache
def _read(place: Store, name: str) -> list[Stage]:
    record = records.find(place.experiment(name).graph, limit=records.GRAPH_BYTES) or {}
    with contextlib.suppress(KeyError, TypeError):
        return [Stage(name, node["name"], node["spec"]["kind"]) for node in record["nodes"]]
    return []


def _states(word: str, place: Store) -> Iterator[str]:
    """The last of several states with commas between."""
    from stx.verbs.listing import STATES

    head = word[: word.rfind(",") + 1]
    typed = word[len(head) :].upper()
    yield from (f"{head}{word[len(head) :]}{state[len(typed) :]}" for state in STATES if state.startswith(typed))


def _sorts(word: str, place: Store) -> Iterator[str]:
    from stx.verbs.listing import SORTS

    yield from SORTS


def _clusters(word: str, place: Store) -> Iterator[str]:
    yield from (f"{path.stem}\tbuilt in" for path in CLUSTERS.glob("*.yaml"))
    yield FILES


def _shells(word: str, place: Store) -> Iterator[str]:
    yield from (path.stem for path in SCRIPTS.glob("*.sh"))


def _files(word: str, place: Store) -> Iterator[str]:
    yield FILES


def _folders(word: str, place: Store) -> Iterator[str]:
    yield FOLDERS


# Parameters by the names that stx/cli.py gives them; what is not here completes nothing.
VALUES: Mapping[str, Callable[[str, Store], Iterator[str]]] = {
    "file": _files,
    "pattern": _patterns,
    "stage": _stages,
    "experiment": _experiments,
    "run": _runs,
    "shell": _shells,
    "--against": _stages,
    "--pin": _stages,
    "--unpin": _stages,
    "--forget": _experiments,
    "--store": _folders,
    "--cluster": _clusters,
    "--state": _states,
    "--sort": _sorts,
    "-o": _files,
    "--output": _files,
    "--tensorboard": _folders,
}
