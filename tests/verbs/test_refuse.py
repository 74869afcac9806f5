"""What a plan refuses beyond the options of its stages."""

import json

import pytest

from stx.verbs import refuse


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("sh", ""),
        ("/bin/sh", ""),
        ("no-such-program", "no program no-such-program is on PATH"),
        ("/no/such", "/no/such does not exist"),
        ("/etc/passwd", "/etc/passwd cannot be run"),
        ("./run.sh", "./run.sh is relative, and a job starts in a folder of its own"),
    ],
)
def test_a_program_that_could_not_be_started_is_said_to_be_missing(program, words):
    assert refuse.missing_program(program) == words


def test_a_refused_model_is_told_in_the_workers_words_not_as_json():
    said = json.dumps({"ok": False, "where": "model S", "what": "there is no block 9", "hint": "1..6"})
    error = refuse.refused_model(2, out=said + "\n", err="a warning\n")
    assert str(error) == "model S\n  there is no block 9\n  1..6"
    assert error.exit_code == 2


def test_a_check_that_died_shows_the_end_of_what_it_printed():
    error = refuse.refused_model(-9, out="", err="line 1\nImportError: no torch\n")
    assert "exit code -9" in error.what and "ImportError: no torch" in str(error)
