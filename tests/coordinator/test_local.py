"""The whole control side on the real thing: local launcher, real supervisors and workers, `command` stages."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import stx
from jobs.launchers.local import LocalLauncher
from stx.config.cluster import load_cluster
from stx.coordinator import loop, snapshot
from stx.coordinator.inbox import Command, put
from stx.coordinator.journal import Reader
from stx.coordinator.snapshot import Code
from stx.coordinator.state import Status
from stx.errors import LeaseHeld, StoreError
from stx.paths import Store
from stx.spec import Graph, Input, Node, StageSpec

pytestmark = pytest.mark.timeout(120)
WRITE = "echo run >> $STX_ATTEMPT/../runs; echo done > $STX_OUTPUT/result"
# Slow the first time only.
SLOW_ONCE = f"{WRITE}; test -e $STX_ATTEMPT/../go || {{ touch $STX_ATTEMPT/../go; sleep 60; }}"


def command(name: str, script: str, **inputs: Node) -> Node:
    science = {"argv": ["sh", "-c", script], "version": "1", "seed": 0}
    named = {f"inputs.{key}": Input("command", value.key) for key, value in inputs.items()}
    return Node(name, name, StageSpec("command", 1, science, named), where={"inputs": {}})


def until(condition) -> None:
    limit = time.monotonic() + 30
    while not condition() and time.monotonic() < limit:
        time.sleep(0.02)


class Place:
    """One store with slots of its own, and what a person does with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "store")
        self.launcher = LocalLauncher(folder / "slots")
        self.cluster = load_cluster("local").model_copy(update={"lease_s": 5.0, "poll_s": 0.05})
        root = Path(stx.__file__).parent.parent
        self.code = Code("code", "science", root)
        self.presses = 0
        self.seen: list[str] = []

    def drive(self, graph: Graph, **options: object) -> int:
        loop.prepare(self.store, graph, "name: test\n")
        return loop.drive(
            self.store, graph, self.cluster, self.launcher,
            code=self.code, python=sys.executable, on_tick=self.look, stop=lambda: self.presses, **options,
        )  # fmt: skip

    def look(self, state) -> None:
        self.seen = [stage.status.value for _, stage in state.rows()]

    def press_when(self, condition, presses: int = 1) -> None:
        def wait() -> None:
            until(condition)
            self.presses = presses

        threading.Thread(target=wait, daemon=True).start()

    def attempts(self, node: Node) -> list[int]:
        return self.store.stage("command", node.key).attempts()

    def runs(self, node: Node) -> int:
        """How often the program really ran."""
        path = self.store.stage("command", node.key).path / "attempts" / "runs"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def started(self, node: Node) -> bool:
        return self.store.stage("command", node.key).attempt(1).log(0).exists() and self.runs(node) > 0


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("STX_CORES", "2")
    monkeypatch.setenv("STX_GPUS", "0")
    return Place(tmp_path)


def test_a_chain_runs_to_its_end_and_is_cached_the_next_time(place):
    first = command("first", WRITE)
    second = command("second", 'cp "$STX_INPUT_DATA/result" "$STX_OUTPUT/copy"', data=first)
    graph = Graph("a", (first, second))
    assert place.drive(graph) == 0
    assert place.seen == ["DONE", "DONE"]
    artifact = json.loads(place.store.stage("command", second.key).result.artifact.read_bytes())
    assert set(artifact["files"]) == {"copy"}
    assert not list(place.store.stages.rglob("wanted_by/*.json")), "an experiment that is done wants nothing"
    assert place.drive(graph) == 0
    assert place.attempts(first) == place.attempts(second) == [1]
    assert Reader(place.store.experiment("a"), graph).refresh().stage(second.key).status is Status.DONE


def test_a_graph_that_another_submit_overwrote_is_not_driven(place):
    mine, theirs = Graph("a", (command("mine", WRITE),)), Graph("a", (command("theirs", WRITE),))
    loop.prepare(place.store, mine, "name: a\n")
    loop.prepare(place.store, theirs, "name: a\n")
    with pytest.raises(StoreError, match="same moment"):
        loop.drive(
            place.store, mine, place.cluster, place.launcher,
            code=place.code, python=sys.executable, on_tick=place.look, stop=lambda: 0,
        )  # fmt: skip
    assert place.attempts(mine.nodes[0]) == []


def test_a_failing_program_fails_its_stage_and_the_rest_goes_on(place):
    bad = command("bad", "echo no such thing >&2; exit 3")
    good, after = command("good", WRITE), command("after", WRITE + "; : after", data=bad)
    assert place.drive(Graph("a", (bad, good, after))) == 3
    assert place.seen == ["FAILED", "DONE", "BLOCKED"]
    state = Reader(place.store.experiment("a"), Graph("a", (bad, good, after))).refresh()
    assert "exit code 3" in state.stage(bad.key).why
    assert place.attempts(bad) == [1]


def test_ctrl_c_stops_waits_and_the_same_again_ends_well(place):
    node = command("slow", SLOW_ONCE)
    place.press_when(lambda: place.started(node))
    begin = time.monotonic()
    assert place.drive(Graph("a", (node,))) == 130
    assert time.monotonic() - begin < 25
    assert place.store.stage("command", node.key).attempt(1).outcome(0).exists(), "it waited for the outcome"
    place.presses = 0
    assert place.drive(Graph("a", (node,))) == 0
    assert place.attempts(node) == [1, 2]


def test_a_second_ctrl_c_leaves_at_once_and_the_job_is_adopted_later(place):
    deaf = command("deaf", f"trap '' TERM; {WRITE}; sleep 2")
    stop = place.store.stage("command", deaf.key).attempt(1).stop
    place.press_when(lambda: place.started(deaf))
    place.press_when(stop.exists, presses=2)
    begin = time.monotonic()
    assert place.drive(Graph("a", (deaf,))) == 130
    assert time.monotonic() - begin < 2
    place.presses = 0
    assert place.drive(Graph("a", (deaf,))) == 0
    assert place.runs(deaf) == 1


def test_a_closed_terminal_stops_nothing(place):
    node = command("slow", f"{WRITE}; sleep 1")
    place.press_when(lambda: place.started(node), presses=2)
    assert place.drive(Graph("a", (node,))) == 130
    assert not place.store.stage("command", node.key).attempt(1).stop.exists()
    place.presses = 0
    assert place.drive(Graph("a", (node,))) == 0
    assert (place.runs(node), place.attempts(node)) == (1, [1])


def test_a_killed_worker_and_supervisor_cost_one_attempt(place):
    node = command("slow", SLOW_ONCE)

    def kill() -> None:
        until(lambda: place.started(node))
        started = json.loads(place.store.stage("command", node.key).attempt(1).started.read_bytes())
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _session(int(entry.name)) == started["pid"]:
                os.kill(int(entry.name), signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    assert place.drive(Graph("a", (node,))) == 0
    thread.join()
    assert place.attempts(node) == [1, 2]
    verdict = json.loads(place.store.stage("command", node.key).attempt(1).verdict.read_bytes())
    assert (verdict["result"], verdict["cause"]) == ("FAILED", "LOST")


def test_a_killed_coordinator_leaves_the_job_and_the_next_one_adopts_it(place, tmp_path):
    node = command("slow", f"{WRITE}; sleep 1.5")
    graph = Graph("a", (node,))
    loop.prepare(place.store, graph, "name: test\n")
    program = tmp_path / "drive.py"
    program.write_text(DRIVER)
    child = subprocess.Popen([sys.executable, str(program), str(tmp_path)])
    until(lambda: place.started(node))
    child.kill()
    child.wait()
    assert place.drive(graph) == 0
    assert place.attempts(node) == [1]
    assert place.runs(node) == 1


def test_a_second_coordinator_of_the_same_experiment_is_refused(place):
    node = command("slow", f"{WRITE}; sleep 1.5")
    graph = Graph("a", (node,))
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(place.drive(graph)))
    thread.start()
    until(lambda: place.started(node))
    with pytest.raises(LeaseHeld):
        place.drive(graph)
    thread.join()
    assert results == [0]


def test_cancel_and_retry_work_when_nobody_drives_the_experiment(place):
    node = command("slow", SLOW_ONCE)
    graph = Graph("a", (node,))
    put_leave = threading.Thread(target=lambda: _leave_when(place, node))
    put_leave.start()
    assert place.drive(graph) == 0, "leave: the coordinator ends, the job runs on"
    put_leave.join()
    order = {"code": place.code, "python": sys.executable}
    key = (node.key,)
    state = loop.command(place.store, graph, place.cluster, place.launcher, Command("cancel", key), **order)
    assert state.stage(node.key).cancelled
    assert place.drive(graph) == 3
    assert place.seen == ["CANCELLED"]
    state = loop.command(place.store, graph, place.cluster, place.launcher, Command("retry", key), **order)
    assert state.stage(node.key).status is Status.READY
    assert place.drive(graph) == 0


def test_once_is_one_look_and_several_of_them_end_the_run(place):
    node = command("quick", WRITE)
    graph = Graph("a", (node,))
    for _ in range(100):
        assert place.drive(graph, once=True) == 0
        if place.seen == ["DONE"]:
            break
        time.sleep(0.05)
    assert place.seen == ["DONE"]
    assert place.attempts(node) == [1]


def test_attempts_run_from_the_snapshot(place):
    place.store.root.mkdir(parents=True)
    place.code = snapshot.snapshot(place.store)
    node = command("where", 'echo "$PYTHONPATH" > $STX_OUTPUT/path')
    assert place.drive(Graph("a", (node,))) == 0
    written = (place.store.stage("command", node.key).payload / "path").read_text()
    assert written.startswith(str(place.code.path))


def _leave_when(place: Place, node: Node) -> None:
    until(lambda: place.started(node))
    put(place.store.experiment("a"), Command("leave"))


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1


DRIVER = """
import json, sys
from pathlib import Path
import stx
from jobs.launchers.local import LocalLauncher
from stx.config.cluster import load_cluster
from stx.coordinator import loop
from stx.coordinator.snapshot import Code
from stx.paths import Store
from stx.spec import Graph

folder = Path(sys.argv[1])
store = Store(folder / "store")
graph = Graph.parse(json.loads(store.experiment("a").graph.read_bytes()))
cluster = load_cluster("local").model_copy(update={"lease_s": 5.0, "poll_s": 0.05})
code = Code("code", "science", Path(stx.__file__).parent.parent)
loop.drive(store, graph, cluster, LocalLauncher(folder / "slots"), code=code, python=sys.executable,
           on_tick=lambda state: None, stop=lambda: 0)
"""
