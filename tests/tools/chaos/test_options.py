"""The command line of the driver: what is refused, and that it explains itself."""

from pathlib import Path

import pytest

from tools.chaos import options
from tools.chaos.schedule import KINDS

MICRO = str(Path(__file__).parents[2] / "integration" / "micro.yaml")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "file"),
        (["nothing.yaml"], "no such file"),
        ([MICRO, "--cluster", "nowhere"], "no built-in cluster"),
        ([MICRO, "--kinds", "kill,wind"], "no kind wind; there are kill, term"),
        ([MICRO, "--kinds", ","], "--kinds"),
        ([MICRO, "--kinds", "preempt"], "no kind preempt; there are kill, term"),
        ([MICRO, "--devcluster", "/nowhere"], "no cluster in /nowhere; slurm/devcluster/up --dir /nowhere"),
        ([MICRO, "--runs", "0"], "must be a whole number of at least 1, not '0'"),
        ([MICRO, "--faults", "x"], "must be a whole number of at least 1, not 'x'"),
        ([MICRO, "--every", "-1"], "must be a positive number"),
        ([MICRO, "--keep-stages", "images,vea"], "no stage vea; there are images, vae"),
        ([MICRO, "--untouched", "/nowhere"], "holds no experiment micro"),
    ],
)
def test_wrong_arguments_end_with_2_and_say_what_is_valid(arguments, words, capsys):
    with pytest.raises(SystemExit) as ended:
        options.parse(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_help_names_every_kind_and_the_exit_codes(capsys):
    with pytest.raises(SystemExit) as ended:
        options.parse(["--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert all(f"  {kind} " in told for kind in KINDS)
    assert "exit codes" in told


def test_a_seed_is_drawn_when_none_is_given_and_the_limits_are_those_of_the_cluster_file():
    wanted = options.parse([MICRO, "--runs", "3", "--keep-stages", "images,vae"])
    assert wanted.seed > 0
    assert wanted.experiment == "micro"
    assert wanted.keep_stages == ("images", "vae")
    assert 0 < wanted.limits.work <= wanted.limits.every


def test_the_drivers_own_cluster_file_has_a_short_limit_for_every_phase():
    """A phase that is left to its default would make a store stall for half an hour."""
    assert options.parse([MICRO]).limits.every <= 60
