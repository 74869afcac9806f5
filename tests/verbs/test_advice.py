"""The commands that verbs end with."""

import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from stx.coordinator.status import Line
from stx.verbs import advice


def failed(why: str) -> Line:
    values: dict[str, Any] = {field.name: None for field in fields(Line)}
    return Line(**values | {"name": "phase1", "state": "FAILED", "why": why})


@pytest.mark.parametrize("name", ["phase1", "phase2:guidance=5,seed=0", "run:labels=[1, 2]"])
def test_a_stage_is_one_word_and_carries_its_experiment(name: str) -> None:
    assert shlex.split(advice.stage("micro", name)) == [f"micro/{name}"]


def test_a_submit_is_repeated_with_what_changes_it() -> None:
    told = advice.submit(Path("my file.yaml"), sets=["a.b={c: 1}"], cluster="two.yaml")
    assert shlex.split(told) == ["stx", "submit", "my file.yaml", "--set", "a.b={c: 1}", "--cluster", "two.yaml"]
    assert advice.submit(Path("e.yaml"), sets=(), cluster=None) == "stx submit e.yaml"


def test_a_failed_stage_is_looked_at_and_retried() -> None:
    assert advice.after_failure("micro", failed("OOM")) == ["stx logs micro/phase1 --failed", "stx retry micro/phase1"]


def test_other_science_code_is_accepted_by_a_submit_because_a_retry_would_be_refused_again() -> None:
    why = "USER: x\nwas written by other science code\n`stx submit FILE --accept-code` resumes it with the new code"
    (_, cure) = advice.after_failure("micro", failed(why))
    assert cure.startswith("stx submit FILE --accept-code")
