"""YAML as this project reads it: YAML 1.2 core scalars, safe, duplicate keys refused, every value knows its line.

PyYAML resolves scalars by YAML 1.1: `1e-4` is a string, `on` is True, `012` is 10, `12:30:00` is 45000. So only its
parser is used; the values are built here from the events. Keys are always text. Anchors, tags and merge keys are
refused: they make one value stand in two places (and allow bombs); `defaults:` and `extends:` do that job. A number
that is not finite is refused.

`dump` writes JSON strings and numbers inside block mappings, so that parse(dump(x)) == x for any finite JSON value.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from stx.errors import ConfigError

Path = tuple[str | int, ...]

MAX_DEPTH = 50
_INT = re.compile(r"[-+]?[0-9]+")
_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: Mapping[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(frozen=True)
class Document:
    """A parsed file: its value, and the line of every value in it by path."""

    file: str
    value: Any
    lines: Mapping[Path, int]


@dataclass
class _Builder:
    """Builds a value from parser events; state that one parse needs."""

    file: str
    events: Iterator[Any]
    lines: dict[Path, int] = field(default_factory=dict)

    def fail(self, what: str, *, path: Path, event: Any, hint: str | None = None) -> ConfigError:
        """An error at an event."""
        at = f": {dotted(path)}" if path else ""
        return ConfigError(what, where=f"{self.file}:{_line(event)}{at}", hint=hint)

    def build(self, event: Any, *, path: Path) -> Any:
        """The value that starts with `event`."""
        self.lines[path] = _line(event)
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise self.fail(
                "anchors and aliases are not read here",
                path=path,
                event=event,
                hint="share options of a kind with `defaults:`, of a file with `extends:`",
            )
        if event.tag is not None:
            raise self.fail(f"tags such as {event.tag} are not read here", path=path, event=event)
        if len(path) > MAX_DEPTH:
            raise self.fail(f"nested more than {MAX_DEPTH} deep", path=path[:3], event=event)
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event, path=path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(path=path)
        return self.mapping(path=path)

    def scalar(self, event: Any, *, path: Path) -> Any:
        """A quoted scalar is text; a plain one is what the YAML 1.2 core schema says."""
        plain = bool(event.implicit[0])
        if not plain:
            return event.value
        try:
            return resolve(event.value)
        except ValueError as error:
            at = f": {dotted(path)} = {event.value}" if path else ""
            where = f"{self.file}:{_line(event)}{at}"
            raise ConfigError(str(error), where=where, hint="numbers must be finite") from error

    def sequence(self, *, path: Path) -> list[Any]:
        """The items up to the end event."""
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.build(event, path=(*path, len(items))))
        return items

    def mapping(self, *, path: Path) -> dict[str, Any]:
        """The pairs up to the end event; each key once."""
        pairs: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent) or event.anchor or event.tag:
                raise self.fail("a key must be a plain word", path=path, event=event)
            key = event.value
            if key == "<<":
                raise self.fail("merge keys are not read here", path=path, event=event, hint="use `defaults:`")
            if key in pairs:
                first = self.lines[(*path, key)]
                raise self.fail(
                    f"duplicate key, already given in line {first}",
                    path=(*path, key),
                    event=event,
                    hint="remove one of the two",
                )
            value = next(self.events)
            pairs[key] = self.build(value, path=(*path, key))
            self.lines[(*path, key)] = _line(event)
        return pairs


def _line(event: Any) -> int:
    number: int = event.start_mark.line
    return number + 1


def parse(text: str, *, file: str) -> Document:
    """The document in `text`; ConfigError names file and line of whatever is not well formed."""
    events = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    builder = _Builder(file=file, events=events)
    value: Any = None
    try:
        next(events)  # StreamStart
        if isinstance(next(events), yaml.DocumentStartEvent):
            value = builder.build(next(events), path=())
            next(events)  # DocumentEnd
            after = next(events)
            if not isinstance(after, yaml.StreamEndEvent):
                raise builder.fail(
                    "a second document in one file", path=(), event=after, hint="one file is one document: no --- in it"
                )
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(
            f"not well-formed YAML: {error.problem}", where=f"{file}{line}", hint=_began(error)
        ) from error
    except yaml.reader.ReaderError as error:
        line = f":{text.count(chr(10), 0, error.position) + 1}"
        raise ConfigError(f"not well-formed YAML: {error.reason}", where=f"{file}{line}", hint="remove it") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"not well-formed YAML: {str(error).splitlines()[0]}", where=file) from error
    return Document(file=file, value=value, lines=builder.lines)


def _began(error: yaml.MarkedYAMLError) -> str:
    """Where what is broken began: a bracket that is never closed is noticed lines below."""
    if error.context and error.context_mark:
        return f"{error.context} that starts in line {error.context_mark.line + 1}"
    return "look at this line and the one above: brackets, quotes, and spaces before names"


def resolve(text: str) -> Any:
    """A plain scalar's value in the YAML 1.2 core schema; ValueError for a number nobody can compute with."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        if len(text) > 40:
            raise ValueError("a whole number of more than 40 digits")
        return int(text)
    if _BASE.fullmatch(text):
        return int(text, base=0)
    if _FLOAT.fullmatch(text):
        value = float(text)
        if math.isfinite(value):
            return value
    elif not _NOT_FINITE.fullmatch(text):
        return text
    raise ValueError("not a finite number")


def dotted(path: Path) -> str:
    """`stages.phase2.sweep[3].seed`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def dump(value: Mapping[str, Any], *, block_depth: int = 2) -> str:
    """YAML text of a JSON mapping: `block_depth` levels of block style, flow style inside."""
    return "\n".join(_block(value, depth=block_depth, indent=0)) + "\n" if value else "{}\n"


def _block(value: Mapping[str, Any], *, depth: int, indent: int) -> Iterator[str]:
    for key, item in value.items():
        head = " " * indent + flow(key) + ":"
        if depth > 1 and isinstance(item, Mapping) and item:
            yield head
            yield from _block(item, depth=depth - 1, indent=indent + 2)
        else:
            yield f"{head} {flow(item)}"


def flow(value: Any) -> str:
    """One line of flow style. Words stay plain, other text is quoted with YAML's own escapes."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    if not isinstance(value, str):
        return json.dumps(value, allow_nan=False)
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", value) and resolve(value) == value:
        return value
    return '"' + "".join(_escaped(letter) for letter in value) + '"'


def _escaped(letter: str) -> str:
    if letter in '"\\':
        return "\\" + letter
    code = ord(letter)
    return letter if 32 <= code < 127 else f"\\U{code:08x}"
