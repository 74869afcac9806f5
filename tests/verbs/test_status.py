"""The words of `stx status` about coordinators and jobs."""

from dataclasses import replace
from datetime import datetime

import pytest

from jobs.spec import JobState
from stx import records
from stx.coordinator.events import Observed
from stx.coordinator.status import Left, Overview
from stx.verbs import status
from stx.verbs.listing import Wish
from stx.verbs.select import choose
from stx.verbs.status import Watched, view


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (None, "journal from 18 s ago, coordinator gone"),
        (Left.ENDED, "ended 18 s ago"),
        (Left.INTERRUPTED, "left 18 s ago (Ctrl-C)"),
        (Left.LEFT, "left 18 s ago"),
    ],
)
def test_how_the_last_coordinator_went_is_told(left: Left | None, words: str) -> None:
    (head,) = view(Overview("e", None, 18.0, "", (), left), Wish())
    assert head.text.endswith(f"; {words}")


def test_a_job_is_told_by_its_number(sweep) -> None:
    (chosen,) = choose(sweep.store, "run:seed=2")
    _, _, row = view(Watched(sweep.store, chosen).look(), Wish())
    assert "17" in row.text.split() and "17:1" not in row.text


def test_more_ranks_than_one_of_a_live_attempt_are_told(sweep) -> None:
    (chosen,) = choose(sweep.store, "run:seed=2")
    watched = Watched(sweep.store, chosen)
    assert "ranks" not in view(watched.look(), Wish())[1].text
    attempt = sweep.store.stage("train", sweep.runs[2].key).attempt(1)
    attempt.path.mkdir(parents=True, exist_ok=True)
    records.write(attempt.attempt, {"layout": {"ranks": 4, "zero_stage": 3}})
    look = watched.look()
    _, head, row = view(look, Wish())
    assert row.text[: head.text.index("ranks") + len("ranks")].endswith(" 4")
    assert look.lines[0].dump()["layout"] == {"ranks": 4, "zero_stage": 3}


@pytest.fixture
def on_slurm(sweep):
    """A run of the sweep, seen by its scheduler, and the look at it."""

    def on_slurm(state: JobState, detail: str, *, started: bool = True, **words: str):
        run = sweep.runs[2]
        sweep.journal.append([Observed(0.0, run.key, 1, state, detail, **words)])
        if not started:
            sweep.store.stage("train", run.key).attempt(1).heartbeat.unlink()
        (chosen,) = choose(sweep.store, "run:seed=2")
        return Watched(sweep.store, chosen).look()

    return on_slurm


def test_a_job_that_waits_says_why_and_when_it_may_start(on_slurm) -> None:
    reason = "job 17 waits for free nodes (Resources)"
    (line,) = on_slurm(JobState.PENDING, reason, started=False, start="2026-11-21T15:00:00").lines
    assert line.state == "QUEUED"
    assert line.why == f"{reason}, expected to start 2026-11-21T15:00:00"
    assert (line.dump()["expected_start"], line.dump()["nodes"]) == ("2026-11-21T15:00:00", "")
    told = [status.why(line, now=datetime(2026, 11, 21, hour, 30)) for hour in (14, 15)]  # noqa: DTZ001
    assert told == [f"{line.why} (in 30.0 min)", line.why]


def test_a_job_that_runs_says_where(on_slurm) -> None:
    look = on_slurm(JobState.RUNNING, "job 17 is RUNNING on n[1-2]", nodes="n[1-2]")
    _, head, row = view(look, Wish())
    assert row.text[head.text.index("nodes") :].startswith("n[1-2]")
    assert look.lines[0].dump()["nodes"] == "n[1-2]"


def test_a_job_on_a_cluster_that_no_coordinator_has_seen_start_is_where_it_said(sweep) -> None:
    run = sweep.runs[2]
    (first,) = [event for event in sweep.started(run) if not isinstance(event, Observed)]
    live = replace(first.facts.live, launcher="slurm:c", job_id="17")
    sweep.journal.append([replace(first, facts=replace(first.facts, live=live))])
    records.write(sweep.store.stage("train", run.key).attempt(1).started, {"host": "n3", "job_id": "17"})
    (chosen,) = choose(sweep.store, "run:seed=2")
    assert Watched(sweep.store, chosen).look().lines[0].nodes == "n3"


def test_attempts_are_told_with_their_causes_where_there_is_room(on_slurm) -> None:
    look = on_slurm(JobState.RUNNING, "")
    line = replace(look.lines[0], attempts=3, causes={"preempted": 1, "NODE": 1}, nodes="n[1-2]")
    assert status.tries(line) == "3 (1 NODE, 1 preempted)"
    for width, told in ((0, "3 (1 NODE, 1 preempted)"), (100, " 3 "), (80, " 3 ")):
        rows = view(replace(look, lines=(line,)), Wish(), width=width)
        assert told in rows[2].text
        assert not width or all(len(row.text) <= width for row in rows)
    assert "n[1-2]" in view(replace(look, lines=(line,)), Wish(), width=100)[2].text
    assert {"images/s", "ETA", "state"} <= set(view(replace(look, lines=(line,)), Wish(), width=80)[1].text.split())


def test_the_last_lines_of_a_stage_that_failed_are_shown(sweep) -> None:
    attempt = sweep.store.stage("train", sweep.runs[0].key).attempt(1)
    attempt.path.mkdir(parents=True)
    attempt.log(0).write_text("".join(f"line {number}\n" for number in range(30)) + "bad \x1b[31m latents\n")
    (chosen,) = choose(sweep.store, "run:seed=0")
    look = Watched(sweep.store, chosen).look()
    texts = [row.text for row in view(look, Wish())]
    assert texts[-7] == f"run:seed=0 printed last, in {attempt.log(0)}:"
    assert texts[-6:] == [*(f"  line {number}" for number in range(25, 30)), "  bad \\x1b[31m latents"]
    assert not any("printed last" in row.text for row in view(look, Wish(), height=20)), "a screen has no room"
    told = look.lines[0].dump()
    assert told["log"] == str(attempt.log(0)) and len(told["log_tail"]) == 20
