"""Dataclasses out of JSON: every value has the type of its field, or the error says which has not."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from jobs import typed
from jobs.spec import Cause, JobSpec, Resources


@dataclass(frozen=True)
class Inner:
    count: int
    share: float = 0.5


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    several: tuple[int, ...]
    pair: tuple[str, int]
    by_name: Mapping[str, Inner]
    anything: Mapping[str, Any]
    word: Literal["a", "b"]
    cause: Cause | None
    place: Path
    flag: bool = False
    more: tuple[str, ...] = field(default_factory=tuple)


RECORD: dict[str, Any] = {
    "name": "n",
    "inner": {"count": 1},
    "several": [1, 2],
    "pair": ["a", 1],
    "by_name": {"x": {"count": 2, "share": 1}},
    "anything": {"x": [None]},
    "word": "a",
    "cause": "OOM",
    "place": "/x",
}


def test_values_become_what_their_fields_declare():
    made = typed.build(Outer, RECORD)
    assert made.inner == Inner(1) and made.several == (1, 2) and made.by_name["x"] == Inner(2, 1)
    assert made.cause is Cause.OOM and made.place == Path("/x") and made.more == ()
    assert typed.build(Outer, RECORD | {"cause": None}).cause is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": 1}, "'name': is a number, it must be text"),
        ({"name": None}, "'name': is null, it must be text"),
        ({"inner": {"count": 1.5}}, "'inner': 'count': is a number, it must be a whole number"),
        ({"inner": {"count": True}}, "'inner': 'count': is true or false, it must be a whole number"),
        ({"inner": {"count": 2**63}}, "'inner': 'count': is a number that 64 bits do not hold"),
        ({"inner": {"count": 1, "share": 10**400}}, "'inner': 'share': is no number to compute with"),
        ({"inner": {}}, "'inner': count is missing"),
        ({"inner": []}, "'inner': is a list, it must be a mapping"),
        ({"several": [1, "2"]}, r"'several': \[1\]: is text, it must be a whole number"),
        ({"several": [1, 2**70]}, r"'several': \[1\]: is a number that 64 bits do not hold"),
        ({"pair": ["a"]}, "'pair': is a list, it must be a list of 2"),
        ({"by_name": {"x": {"count": None}}}, "'by_name': 'x': 'count': is null, it must be a whole number"),
        ({"word": "c"}, "'word': must be one of a, b"),
        ({"cause": "BOREDOM"}, "'cause': must be one of OOM"),
        ({"flag": 1}, "'flag': is a number, it must be true or false"),
        ({"other": 1}, "nothing here is called 'other'"),
    ],
)
def test_the_value_that_is_wrong_is_named(change, told):
    with pytest.raises(ValueError, match=told):
        typed.build(Outer, RECORD | change)


def test_what_is_dumped_is_built_again():
    job = JobSpec("t", ("a",), Path("/a"), Path("/"), Resources(mem_gb=2), {"A": "b"})
    assert typed.build(JobSpec, job.dump()) == job


def test_a_mapping_is_read_out_of_bytes_or_refused():
    assert typed.mapping(b'{"a": 1}') == {"a": 1}
    for data in (b"[]", b"{", b"\xff", b"[" * 100_000, b""):
        with pytest.raises(ValueError):
            typed.mapping(data)
