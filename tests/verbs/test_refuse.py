"""What a plan refuses beyond the options of its stages."""

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
