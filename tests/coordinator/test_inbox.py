"""Commands: order, names, and files that nobody of ours wrote."""

import os

import pytest

from stx import records, sharing
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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's file")
def test_commands_of_another_user_than_the_experiments_are_not_obeyed(tmp_path):
    experiment = ExperimentDir(tmp_path)
    sharing.claim(experiment)
    for user in (4242, 4243, 0):
        put(experiment, Command("cancel", (f"of {user}",)))
        newest = max(experiment.inbox.iterdir())
        os.chown(newest, user, -1)
    os.chown(experiment.user, 4242, -1)
    assert [letter.command.keys for letter in letters(experiment)] == [("of 4242",), ("of 0",)]


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
