"""Columns, colours, JSON."""

import io
import json
from typing import Any

import pytest

from stx.verbs import console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_table_aligns_and_cuts_nothing_off_a_terminal() -> None:
    rows = [("a", "1"), ("long name", "1,000")]
    text = console.table(("stage", "n"), rows, right=frozenset({"n"}), stream=io.StringIO())
    assert text == "stage          n\na              1\nlong name  1,000"


def test_colour_only_on_a_terminal_and_never_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert console.styled("x", "red", stream=io.StringIO()) == "x"
    assert console.styled("x", "red", stream=Terminal()) == "\033[31mx\033[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert console.styled("x", "red", stream=Terminal()) == "x"


def test_json_carries_the_schema_number(capsys: pytest.CaptureFixture[Any]) -> None:
    console.out_json({"a": 1})
    assert json.loads(capsys.readouterr().out) == {"schema": console.SCHEMA, "a": 1}


def test_next_commands_go_to_stderr(capsys: pytest.CaptureFixture[Any]) -> None:
    console.next_commands("stx status", "stx report e")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "next: stx status\n      stx report e\n"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["stx", "plan", "a.yaml"], "stx submit a.yaml   (again)"),
        (["stx", "plan", "a.yaml", "--store", "my store"], "stx submit a.yaml --store 'my store'   (again)"),
        (["stx", "plan", "a.yaml", "--store=/data"], "stx submit a.yaml --store /data   (again)"),
    ],
)
def test_a_typed_store_is_repeated_in_the_next_commands(typed: list[str], expected: str) -> None:
    assert console.with_store("stx submit a.yaml   (again)", typed=typed) == expected
    assert console.with_store("stx submit --store x", typed=typed) == "stx submit --store x"
