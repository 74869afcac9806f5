"""Commands: order, names, and files that nobody of ours wrote."""

import pytest

from stx import records
from stx.coordinator.inbox import Command, letters, put
from stx.errors import StoreError
from stx.paths import ExperimentDir


def test_commands_come_in_the_order_in_which_they_were_given(tmp_path):
    experiment = ExperimentDir(tmp_path)
    assert letters(experiment) == []
    given = [
        Command("cancel", ("k1", "k2")),
        Command("retry", ("k1",), take_over=True),
        Command("leave"),
    ]
    for command in given:
        put(experiment, command)
    assert [letter.command for letter in letters(experiment)] == given
    assert len({letter.name for letter in letters(experiment)}) == 3


def test_a_file_that_is_being_written_is_not_yet_a_command(tmp_path):
    experiment = ExperimentDir(tmp_path)
    experiment.inbox.mkdir()
    (experiment.inbox / ".0001.json.12-ab.tmp").write_bytes(b"{")
    assert letters(experiment) == []


def test_something_else_is_named(tmp_path):
    experiment = ExperimentDir(tmp_path)
    experiment.inbox.mkdir()
    records.write(experiment.inbox / "0001.json", {"verb": "explode", "keys": []})
    with pytest.raises(StoreError, match="not a command"):
        letters(experiment)
