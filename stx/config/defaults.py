"""The options of a stage, read back from its key, each with the mark whether it is the default of its kind.

An option that was left at its neutral value is not in the key; it is told all the same, because it acts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stx.config.alignment.base import AlignmentOptions, methods, module
from stx.config.schema import Mark, Options, marks, plain

_REQUIRED: Any = object()


@dataclass(frozen=True)
class Told:
    """One option: its dotted path, its value as JSON, and whether a file that does not name it has this value."""

    path: str
    value: Any
    default: bool


def told(model: type[Options], values: Mapping[str, Any], *, role: str, default: Options | None = None) -> list[Told]:
    """The options of one role (science or where) in the order of the model; `values` as they stand in a graph, and
    `default` what a group is where the file does not name it.

    Science values that the model does not know come last: another version of stx planned that graph.
    """
    known = {mark.name: mark for mark in marks(model)}
    defaults = {
        name: plain(getattr(default, name)) if type(default) is model else _default(model, name) for name in known
    }
    found = [
        one for mark in known.values() for one in _told(model, mark, values, role=role, default=defaults[mark.name])
    ]
    unknown = [name for name in values if name not in known] if role == "science" else []
    return found + [one for name in unknown for one in _flat(name, values[name])]


def _told(model: type[Options], mark: Mark, values: Mapping[str, Any], *, role: str, default: Any) -> Iterator[Told]:
    if mark.role == "group":
        inner = values.get(mark.name, {})
        below = _group(model, mark.name, inner)
        unnamed = model.model_fields[mark.name].get_default(call_default_factory=True)
        found = told(below, inner, role=role, default=unnamed) if below else _flat("", inner)
        yield from (Told(f"{mark.name}.{one.path}".removesuffix("."), one.value, one.default) for one in found)
    elif mark.role == role:
        if mark.name in values:
            yield from _flat(mark.name, values[mark.name], default)
        elif mark.has_neutral:
            yield Told(mark.name, plain(mark.neutral), plain(mark.neutral) == default)
    elif isinstance(values.get(mark.name), Mapping):  # of a user's file: its version in the key, its path out of it
        yield from _flat(mark.name, values[mark.name])


def _group(model: type[Options], name: str, values: Mapping[str, Any]) -> type[Options] | None:
    """The model of a group; that of an alignment follows from its method."""
    annotation = model.model_fields[name].annotation
    if not (isinstance(annotation, type) and issubclass(annotation, Options)):
        return None
    if issubclass(annotation, AlignmentOptions) and values.get("method") in methods():
        chosen: type[Options] = module(values["method"]).Options
        return chosen
    return annotation


def _default(model: type[Options], name: str) -> Any:
    field = model.model_fields[name]
    return _REQUIRED if field.is_required() else plain(field.get_default(call_default_factory=True))


def _flat(path: str, value: Any, default: Any = _REQUIRED) -> Iterator[Told]:
    """Mappings inside a value, one line each."""
    if isinstance(value, Mapping) and value and default is _REQUIRED:
        for name, item in value.items():
            yield from _flat(f"{path}.{name}".removeprefix("."), item)
    else:
        yield Told(path, value, value == default)
