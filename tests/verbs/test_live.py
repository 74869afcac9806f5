"""The live table and its plain twin, drawn from real states."""

import io
import re
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jobs.spec import JobState
from stx import records
from stx.coordinator import transitions
from stx.coordinator.events import Event, Facts, Live, Observed, Opened, Policy, Surveyed
from stx.coordinator.state import State
from stx.endings import Ended
from stx.paths import Store
from stx.spec import Graph, Input, Node, StageSpec
from stx.verbs.live import NOTE_S, LiveDisplay, PlainDisplay

OPENED = Opened(0.0, "c", 1, Policy({}, (0.0,), 10, 10, 5.0), facts={})
LIVE = Live(number=1, experiment="e", host="h", launcher="local:x", reachable=True, job_id="1")


def sweep(size: int) -> Graph:
    first = Node("first", "first", StageSpec("latents", 1, {}))
    inputs = {"latents": Input("latents", first.key)}
    runs = [Node(f"run:seed={s}", "run", StageSpec("train", 1, {"seed": s}, inputs), wants=(100,)) for s in range(size)]
    return Graph("e", (first, *runs))


def running(store: Store, graph: Graph, *, live: int) -> State:
    events: list[Event] = [OPENED, Surveyed(0.0, graph.nodes[0].key, Facts(artifact=True))]
    for node in graph.nodes[1 : 1 + live]:
        folder = store.stage("train", node.key).attempt(1)
        folder.path.mkdir(parents=True)
        beat = {"images": 50, "total": 100, "images_per_s": 10.0, "loss": 0.5}
        records.write(folder.heartbeat, {"counter": 1, "phase": "step", "time": time.time(), "numbers": beat})
        events += [Surveyed(0.0, node.key, Facts(last=1, live=LIVE)), Observed(0.0, node.key, 1, JobState.RUNNING)]
    return transitions.replay(graph, events)


def drawn(display: LiveDisplay, state: State, *, width: int = 120) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(display._render(state))
    return stream.getvalue()


def test_a_thousand_stages_stay_one_screen(tmp_path: Path) -> None:
    store, graph = Store(tmp_path), sweep(1000)
    text = drawn(LiveDisplay(store), running(store, graph, live=60))
    assert len(text.splitlines()) <= 26
    assert "60 running" in text and "940 ready" in text and "1 done" in text
    assert "more live stages" in text


@pytest.mark.parametrize(("width", "header"), [(40, "stage % ETA"), (60, "stage % images/s ETA loss")])
def test_narrow_terminals_get_whole_names_and_fewer_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, header: str
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    store, graph = Store(tmp_path), sweep(20)
    lines = drawn(LiveDisplay(store), running(store, graph, live=2), width=width).splitlines()
    assert lines[0].split() == header.split()
    assert lines[1].split()[:2] == ["run:seed=0", "50"]
    assert max(len(line) for line in lines) <= width


def test_row_shows_progress_rate_eta_and_loss(tmp_path: Path) -> None:
    store, graph = Store(tmp_path), sweep(1)
    (row,) = [
        line for line in drawn(LiveDisplay(store), running(store, graph, live=1)).splitlines() if "run:seed=0" in line
    ]
    assert [word in row for word in ("50", "10", "5 s", "0.5", "step")] == [True] * 5


def test_failure_is_one_line_under_the_table(tmp_path: Path) -> None:
    store, graph = Store(tmp_path), sweep(1)
    ended = Ended(1, "FAILED", "USER", "ValueError: no\nsecond line")
    event = Surveyed(0.0, graph.nodes[1].key, Facts(last=1, ended=ended, spent={"USER": 1}))
    state = transitions.replay(graph, [OPENED, event])
    (line,) = [line for line in drawn(LiveDisplay(store), state).splitlines() if line.startswith("failed")]
    assert "run:seed=0" in line and "no; second line" in line


def test_plain_lines_say_each_change_once(tmp_path: Path, capsys: pytest.CaptureFixture[Any]) -> None:
    store, graph = Store(tmp_path), sweep(2)
    display = PlainDisplay(store)
    first = running(store, graph, live=1)
    display.tick(first)
    display.tick(first)
    second, _ = transitions.step(first, Surveyed(1.0, graph.nodes[1].key, Facts(parts=(100,), last=1)))
    display.tick(second)
    said = [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert said == ["1 READY, 1 DONE, 1 RUNNING", "run:seed=0 RUNNING", "run:seed=0 DONE"]


def test_a_job_that_waits_for_its_turn_is_queued_and_not_running(
    tmp_path: Path, capsys: pytest.CaptureFixture[Any]
) -> None:
    store, graph = Store(tmp_path), sweep(2)
    events = [OPENED, Surveyed(0.0, graph.nodes[0].key, Facts(artifact=True))]
    waiting = transitions.replay(graph, [*events, Surveyed(0.0, graph.nodes[1].key, Facts(last=1, live=LIVE))])
    assert "1 queued" in drawn(LiveDisplay(store), waiting)
    assert "running" not in drawn(LiveDisplay(store), waiting)
    display = PlainDisplay(store)
    display.tick(waiting)
    for _ in range(2):
        display._noted -= NOTE_S
        display.tick(waiting)
    started, _ = transitions.step(waiting, Observed(1.0, graph.nodes[1].key, 1, JobState.RUNNING))
    display.tick(started)
    said = [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert said == ["1 READY, 1 DONE, 1 QUEUED", "run:seed=0 queued", "run:seed=0 RUNNING"]


def test_half_a_minute_later_only_stages_that_moved_are_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[Any]
) -> None:
    store, graph = Store(tmp_path), sweep(2)
    state = running(store, graph, live=2)
    display = PlainDisplay(store)
    for images in (50, 50, 60):
        folder = store.stage("train", graph.nodes[1].key).attempt(1)
        numbers = {"images": images, "total": 100}
        records.write(folder.heartbeat, {"counter": 1, "phase": "step", "time": time.time(), "numbers": numbers})
        display._noted -= NOTE_S
        display.tick(state)
    said = [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert sum("run:seed=0 50 of 100" in line for line in said) == 1
    assert sum("run:seed=0 60 of 100" in line for line in said) == 1
    assert sum("run:seed=1 50 of 100" in line for line in said) == 1


@pytest.mark.slow
def test_submit_in_a_narrow_terminal_without_colours_draws_its_table(terminal: Any, tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text('name: e\nstages:\n  one: {kind: command, argv: [sh, -c, "sleep 2; touch $STX_OUTPUT/x"]}\n')
    slots = str(tmp_path / "slots")
    one = terminal("submit", str(path), columns=40, NO_COLOR="1", STX_SLOTS=slots, STX_CORES="2")
    one.says("stage  %  ETA")
    assert one.ends() == 0
    assert not re.search(rb"\033\[[34][0-9]m", one.raw)
