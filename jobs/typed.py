"""Dataclasses out of JSON that anyone may have written: every value has the type that its field declares. Standard
library only.

    build(Handle, {"tag": "t", "job_id": 7})     ValueError: job_id is a number, it must be text

A field that is missing (and has no default) or unknown is a ValueError, too, and so is a number that 64 bits do not
hold. A whole number may stand where a float is declared, and stays one: what is read and written again keeps its bytes.
"""

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Callable, Hashable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Check = Callable[[Any], Any]

LARGEST = 2**63
_WORDS = {
    dict: "a mapping",
    list: "a list",
    tuple: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def build(cls: type[T], record: Any) -> T:
    """The dataclass `cls` of a JSON object; ValueError says which value is wrong."""
    made: T = _check_of(typing.cast("Hashable", cls))(record)
    return made


def mapping(data: bytes) -> dict[str, Any]:
    """The JSON object in some bytes; ValueError if there is none."""
    try:
        record = json.loads(data)
    except RecursionError:
        raise ValueError("is nested too deep") from None
    if not isinstance(record, dict):
        raise _wrong(record, "a mapping")
    return record


def matching(annotation: Any, value: Any) -> Any:
    """A JSON value as this type (`tuple[int, ...]`, `Mapping[str, float]`); ValueError if it is not of it."""
    return _check_of(annotation)(value)


@functools.cache
def _check_of(annotation: Any) -> Check:
    """The function that checks and converts values of one type."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return _anything
    if annotation in _SIMPLE:
        return _SIMPLE[annotation]
    if origin in (typing.Union, types.UnionType):
        return _any_of([_check_of(one) for one in arguments])
    if origin is typing.Literal:
        return _one_of(arguments)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(_check_of(arguments[1]))
    if origin is tuple and arguments[-1] is not Ellipsis:
        return _fixed([_check_of(one) for one in arguments])
    if origin is not None and issubclass(origin, Sequence):
        return _sequence(_check_of(arguments[0]))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _one_of(tuple(annotation), convert=annotation)
    assert dataclasses.is_dataclass(annotation), f"{annotation} is no type of a record's value"
    return _dataclass(annotation)


def _wrong(value: Any, wanted: str) -> ValueError:
    return ValueError(f"is {_WORDS.get(type(value), type(value).__name__)}, it must be {wanted}")


def _anything(value: Any) -> Any:
    return value


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    raise _wrong(value, "text")


def _whole(value: Any) -> int:
    if type(value) is int:
        if -LARGEST < value < LARGEST:
            return value
        raise ValueError("is a number that 64 bits do not hold")
    raise _wrong(value, "a whole number")


def _number(value: Any) -> float:
    if type(value) is float or type(value) is int:
        if -1e300 < value < 1e300:
            return value
        raise ValueError("is no number to compute with")
    raise _wrong(value, "a number")


def _bool(value: Any) -> bool:
    if type(value) is bool:
        return value
    raise _wrong(value, "true or false")


def _null(value: Any) -> None:
    if value is not None:
        raise _wrong(value, "null")


def _path(value: Any) -> Path:
    return Path(_text(value))


_SIMPLE: Mapping[Any, Check] = {
    str: _text,
    int: _whole,
    float: _number,
    bool: _bool,
    type(None): _null,
    Path: _path,
}


_PLAIN: Mapping[Check, type] = {_text: str, _bool: bool, _number: float}  # a value of the type needs no further look


def _one_of(valid: tuple[Any, ...], convert: Check = lambda value: value) -> Check:
    words = {str(one): one for one in valid}

    def check(value: Any) -> Any:
        if type(value) is str and value in words:
            return convert(value)
        raise ValueError(f"must be one of {', '.join(words)}")

    return check


def _any_of(checks: Sequence[Check]) -> Check:
    def check(value: Any) -> Any:
        problem = ValueError()
        for one in checks:
            try:
                return one(value)
            except ValueError as error:
                # what is said of the type that the value nearly has is more use than "must be null"
                problem = error if one is not _null else problem
        raise problem

    return check


def _mapping(check_item: Check) -> Check:
    def check(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _wrong(value, "a mapping")
        if check_item is _anything:
            return value
        try:
            return {key: check_item(item) for key, item in value.items()}
        except ValueError:
            return {key: _inside(check_item, item, key) for key, item in value.items()}  # says which one

    return check


def _sequence(check_item: Check) -> Check:
    def check(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise _wrong(value, "a list")
        if check_item is _whole and set(map(type, value)) == {int} and -LARGEST < min(value) <= max(value) < LARGEST:
            return tuple(value)  # a million labels are not looked at one by one
        try:
            return tuple([check_item(item) for item in value])
        except ValueError:
            return tuple([_inside(check_item, item, place) for place, item in enumerate(value)])  # says which one

    return check


def _fixed(checks: Sequence[Check]) -> Check:
    def check(value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != len(checks):
            raise _wrong(value, f"a list of {len(checks)}")
        return tuple(_inside(one, item, place) for place, (one, item) in enumerate(zip(checks, value, strict=True)))

    return check


def _dataclass(cls: Any) -> Check:
    hints = typing.get_type_hints(cls)
    checks = {one.name: _check_of(hints[one.name]) for one in dataclasses.fields(cls) if one.init}
    plain = {name: _PLAIN.get(check) for name, check in checks.items()}
    required = {
        one.name
        for one in dataclasses.fields(cls)
        if one.init and one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
    }

    def check(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _wrong(value, "a mapping")
        if not required <= value.keys():
            raise ValueError(f"{', '.join(sorted(required - value.keys()))} is missing")
        made, name = {}, ""
        try:
            for name, item in value.items():
                made[name] = item if type(item) is plain[name] else checks[name](item)
        except KeyError:
            raise ValueError(f"nothing here is called {str(name)[:80]!r}") from None
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from None
        return cls(**made)

    return check


def _inside(check: Check, value: Any, name: Any) -> Any:
    try:
        return check(value)
    except ValueError as error:
        raise ValueError(f"{str(name)[:80]!r}: {error}" if type(name) is str else f"[{name}]: {error}") from None
