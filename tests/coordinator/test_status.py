"""status.py over journals and attempt directories as coordinators and workers leave them."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs import processes
from jobs.spec import JobState
from stx import records
from stx.coordinator import lease
from stx.coordinator.events import Event, Facts, Interrupted, Live, Observed, Opened, Ordered, Policy, Surveyed
from stx.coordinator.journal import Journal
from stx.coordinator.status import Left, Line, Observer
from stx.endings import Ended
from stx.paths import Store
from stx.spec import Artifact, Graph, Input, Node, StageSpec

OPENED = Opened(now=0.0, clock="c", token=1, policy=Policy({}, (0.0,), 10, 10, 5.0), facts={})
LIVE = Live(number=1, experiment="e", host="h", launcher="local:x", reachable=True, job_id="17:1:x")


class Scene:
    """One train stage on latents, seen by a coordinator that is gone."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.latents = Node("latents", "latents", StageSpec("latents", 1, {}))
        inputs = {"latents": Input("latents", self.latents.key)}
        self.run = Node("run", "run", StageSpec("train", 1, {"seed": 0}, inputs), wants=(100, 200))
        self.graph = Graph("e", (self.latents, self.run))
        self.experiment = self.store.experiment("e")
        self.experiment.path.mkdir(parents=True)
        self.journal = Journal(self.experiment, 1)
        self.journal.append([OPENED, Surveyed(0.0, self.latents.key, Facts(artifact=True))])

    def attempt(self, **beat: Any) -> Any:
        folder = self.store.stage("train", self.run.key).attempt(1)
        folder.path.mkdir(parents=True)
        if beat:
            records.write(folder.heartbeat, {"counter": 1, "phase": "step", "time": time.time(), "numbers": beat})
        self.write(Surveyed(0.0, self.run.key, Facts(last=1, live=LIVE)))
        return folder

    def write(self, *events: Event) -> None:
        self.journal.append(events)

    def line(self, name: str = "run") -> Line:
        look = Observer(self.store, experiment=self.experiment, graph=self.graph).look()
        return next(line for line in look.lines if line.name == name)

    def publish(self, images: int) -> None:
        part = self.store.stage("train", self.run.key).part("train", images)
        part.path.mkdir(parents=True)
        records.publish(part.artifact, Artifact("train", self.run.key, images, {}).dump())


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_live_attempt_is_shown_by_its_heartbeat_although_no_coordinator_lives(scene: Scene) -> None:
    scene.attempt(images=120, total=200, images_per_s=40.0, loss=0.5)
    line = scene.line()
    assert (line.state, line.images, line.total, line.images_per_s, line.eta_s, line.loss) == (
        "RUNNING",
        120,
        200,
        40.0,
        2.0,
        0.5,
    )
    assert line.heartbeat_age_s is not None and line.heartbeat_age_s < 60
    assert (line.attempt, line.job_id, line.phase) == (1, "17:1:x", "step")


def test_answer_says_that_the_coordinator_is_gone_and_how_old_the_journal_is(scene: Scene) -> None:
    look = Observer(scene.store, experiment=scene.experiment, graph=scene.graph).look()
    assert look.driver is None
    assert look.journal_age_s is not None and look.journal_age_s < 60
    assert look.counts == {"DONE": 1, "READY": 1}


def test_living_coordinator_is_named(scene: Scene) -> None:
    held = lease.acquire(scene.experiment, lease_s=60.0)
    look = Observer(scene.store, experiment=scene.experiment, graph=scene.graph).look()
    held.release()
    assert look.driver is not None and look.driver.here


def test_attempt_that_waits_for_its_scheduler_is_queued(scene: Scene) -> None:
    scene.attempt()
    scene.write(Observed(0.0, scene.run.key, 1, JobState.PENDING))
    assert scene.line().state == "QUEUED"


def test_attempt_that_ended_after_the_last_journal_entry_is_not_shown_as_running(scene: Scene) -> None:
    folder = scene.attempt(images=120, total=200)
    records.publish(folder.outcome(0), {"rank": 0, "result": "FAILED", "cause": "OOM", "message": "", "info": {}})
    line = scene.line()
    assert (line.state, line.why) == ("ENDED", "FAILED OOM; submit again to go on")


def test_stage_whose_results_are_all_there_is_done_although_the_journal_does_not_know(scene: Scene) -> None:
    folder = scene.attempt(images=200, total=200)
    records.publish(folder.outcome(0), {"rank": 0, "result": "COMPLETED", "cause": None, "message": "", "info": {}})
    scene.publish(100)
    assert scene.line().state == "ENDED"
    scene.publish(200)
    assert (scene.line().state, scene.line().images) == ("DONE", 200)


@pytest.mark.parametrize("status", ["READY", "CANCELLED"])
def test_a_run_at_rest_is_as_far_as_its_newest_checkpoint(scene: Scene, status: str) -> None:
    scene.attempt()
    scene.publish(100)
    (scene.store.stage("train", scene.run.key).checkpoints / "150-001").mkdir(parents=True)
    scene.write(Surveyed(1.0, scene.run.key, Facts(parts=(100,), last=1, ended=Ended(1, "YIELDED"))))
    if status == "CANCELLED":
        scene.write(Ordered(2.0, "c", "cancel", keys=(scene.run.key,)))
    line = scene.line()
    assert (line.state, line.images, line.total) == (status, 150, 200)


def test_an_attempt_that_has_not_begun_its_steps_is_as_far_as_its_checkpoint(scene: Scene) -> None:
    (scene.store.stage("train", scene.run.key).checkpoints / "150-001").mkdir(parents=True)
    scene.attempt()
    scene.write(Observed(0.0, scene.run.key, 1, JobState.RUNNING))
    assert (scene.line().state, scene.line().images) == ("RUNNING", 150)


@pytest.mark.parametrize(
    ("events", "left"),
    [
        ([], Left.LEFT),
        ([Interrupted(1.0)], Left.INTERRUPTED),
        ([Ordered(1.0, "c", "cancel")], Left.ENDED),
    ],
)
def test_a_coordinator_that_gave_its_lease_back_has_left_in_good_order(
    scene: Scene, events: list[Any], left: Left
) -> None:
    held = lease.acquire(scene.experiment, lease_s=60.0)
    keys = (scene.run.key,)
    scene.write(*(replace(one, keys=keys) if isinstance(one, Ordered) else one for one in events))
    observer = Observer(scene.store, experiment=scene.experiment, graph=scene.graph)
    assert observer.look().left is None
    held.release()
    assert observer.look().left is left


def test_a_coordinator_that_vanished_left_no_word(scene: Scene) -> None:
    gone = "1:1:" + ":".join(processes.unique_id(processes.me()).split(":")[2:])
    assert lease.acquire(scene.experiment, lease_s=60.0, me=gone)
    look = Observer(scene.store, experiment=scene.experiment, graph=scene.graph).look()
    assert (look.driver, look.left) == (None, None)


def test_torn_heartbeat_is_no_error(scene: Scene) -> None:
    folder = scene.attempt(images=120, total=200)
    folder.heartbeat.write_bytes(b'{"counter": 1, "pha')
    assert (scene.line().state, scene.line().images) == ("RUNNING", 0)


def test_observer_reads_only_what_was_appended(scene: Scene) -> None:
    observer = Observer(scene.store, experiment=scene.experiment, graph=scene.graph)
    assert observer.look().counts == {"DONE": 1, "READY": 1}
    scene.write(Surveyed(1.0, scene.run.key, Facts(parts=(100, 200), last=1)))
    assert observer.look().counts == {"DONE": 2}


def test_experiment_that_never_started_is_all_waiting(scene: Scene, tmp_path: Path) -> None:
    empty = scene.store.experiment("never")
    empty.path.mkdir()
    look = Observer(scene.store, experiment=empty, graph=scene.graph).look()
    assert look.journal_age_s is None
    assert set(look.counts) == {"WAITING"}


def test_only_the_asked_stages_are_read(scene: Scene) -> None:
    observer = Observer(scene.store, experiment=scene.experiment, graph=scene.graph)
    assert [line.name for line in observer.look(keys=[scene.latents.key]).lines] == ["latents"]
