"""Verbs and reasons, against stores whose files are written as the workers and coordinators write them."""

import pytest

from jobs import outcome
from jobs.outcome import Outcome
from jobs.spec import Resources, Result
from stx import plan, records
from stx.errors import PlanError
from stx.paths import Store
from stx.plan import Verb
from stx.spec import Artifact

CHAIN = """\
name: chain
stages:
  one: {kind: command, argv: [a]}
  two: {kind: command, argv: [b], inputs: {up: one}}
"""


class Stage:
    """What others left of one node in a store."""

    def __init__(self, store, node):
        self.node = node
        self.dir = store.stage(node.spec.kind, node.key)

    def finish(self, images=None, *, seconds=2.0, experiment="quick", **told):
        part = self.dir.result if images is None else self.dir.part(self.node.spec.kind, images)
        part.path.mkdir(parents=True, exist_ok=True)
        info = {"experiment": experiment, "seconds": seconds, **told}
        artifact = Artifact(self.node.spec.kind, self.node.key, images, {"f": "00"}, info)
        records.write(part.artifact, artifact.dump())
        return artifact.digest[:8]

    def claim(self, number, *, experiment="other", ranks=1):
        attempt = self.dir.attempt(number)
        attempt.path.mkdir(parents=True)
        job = {"resources": vars(Resources(ranks_per_node=ranks))}
        claim = {"number": number, "experiment": experiment, "host": "h", "code": "c", "launcher": "l", "tag": "t"}
        records.write(attempt.intent, claim | {"job": job})
        return attempt

    def checkpoint(self, images):
        (self.dir.checkpoints / f"{images}-001").mkdir(parents=True)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def stage(store):
    return lambda planned, name: Stage(store, planned[name])


@pytest.fixture
def verbs(store):
    def verbs(planned, previous=None):
        found = plan.lines(planned.graph, plan.survey(planned.graph, store), previous=previous and previous.graph)
        return {line.node.name: (line.verb, line.reason) for line in found}

    return verbs


def test_an_empty_store_runs_what_has_no_inputs_and_lets_the_rest_wait(expand, verbs, store):
    found = verbs(expand())
    assert found["images"] == (Verb.RUN, "no attempt yet")
    assert found["latents"] == (Verb.WAIT, "needs images, vae")
    assert found["samples:phase1"] == (Verb.WAIT, "needs phase1, latents, vae")
    assert not store.root.exists()


def test_what_is_finished_is_cached_whoever_made_it(expand, verbs, stage):
    planned = expand(CHAIN)
    digest = stage(planned, "one").finish()
    found = verbs(planned)
    assert found["one"] == (Verb.CACHED, f"finished (payload {digest}, by experiment quick)")
    assert found["two"] == (Verb.RUN, "no attempt yet")


def test_an_attempt_without_an_end_is_attached_to(expand, verbs, stage):
    planned = expand(CHAIN)
    attempt = stage(planned, "one").claim(2, ranks=2)
    assert verbs(planned)["one"] == (Verb.ATTACH, "attempt 2 is live, held by experiment other")
    outcome.publish(attempt, Outcome(0, Result.COMPLETED))
    assert verbs(planned)["one"][0] == Verb.ATTACH
    outcome.publish(attempt, Outcome(1, Result.YIELDED))
    assert verbs(planned)["one"] == (Verb.RUN, "1 attempts left nothing")


def test_a_verdict_ends_an_attempt(expand, verbs, stage):
    planned = expand(CHAIN)
    verdict = {"result": "FAILED", "cause": "LOST", "message": "gone"}
    records.write(stage(planned, "one").claim(1).verdict, verdict)
    assert verbs(planned)["one"][0] == Verb.RUN


def ready(planned, stage, *names):
    for name in ("images", "vae", "latents", *names):
        stage(planned, name).finish()


def test_a_run_with_a_checkpoint_is_resumed(expand, verbs, stage):
    planned = expand()
    ready(planned, stage)
    stage(planned, "phase1").checkpoint(80)
    stage(planned, "phase1").checkpoint(120)
    assert verbs(planned)["phase1"] == (Verb.RESUME, "checkpoint at 120 of 320 images")


def test_a_later_goal_resumes_a_finished_run(expand, verbs, stage, small):
    planned = expand(small, ("steps: 40", "steps: 80"))
    ready(planned, stage)
    phase1 = stage(planned, "phase1")
    phase1.finish(160)
    phase1.finish(320)
    phase1.checkpoint(320)
    assert verbs(planned)["phase1"] == (Verb.RESUME, "checkpoint at 320 of 640 images")
    assert verbs(expand())["phase1"][0] == Verb.CACHED


def test_samples_start_at_the_first_milestone_of_a_run(expand, verbs, stage):
    planned = expand()
    ready(planned, stage)
    assert verbs(planned)["samples:phase1"] == (Verb.WAIT, "needs phase1")
    stage(planned, "phase1").finish(160)
    assert verbs(planned)["samples:phase1"] == (Verb.RUN, "no attempt yet")
    stage(planned, "samples:phase1").finish(160)
    verb, reason = verbs(planned)["samples:phase1"]
    assert (verb, reason) == (Verb.RESUME, "1 of 2 parts are finished, not 320 images")


def test_a_frozen_milestone_is_there_before_its_run_ends(expand, verbs, stage, small):
    planned = expand(small, ("run: phase1", "run: phase1, at: 20"))
    stage(planned, "phase1").finish(160)
    assert verbs(planned)["teacher"] == (Verb.RUN, "no attempt yet")


def test_a_changed_option_reruns_and_says_what_changed(expand, verbs, stage, small):
    before, after = expand(), expand(small, ("guidance: 5", "guidance: 10"))
    ready(before, stage)
    for node in before.graph.nodes:
        if node.stage in ("phase1", "teacher", "features", "phase2"):
            for images in node.wants or (None,):
                stage(before, node.name).finish(images)
    found = verbs(after, before)
    assert found["teacher"][0] == found["features"][0] == Verb.CACHED
    assert found["phase2:guidance=30,seed=0"][0] == Verb.CACHED
    # the name tells the guidance, so a sweep's changed point is a new one
    assert found["phase2:guidance=10,seed=0"] == (Verb.RUN, "no attempt yet")
    faster = expand(small, ("seed: 100, ", "seed: 100, lr: 0.01, "))
    found = verbs(faster, before)
    assert found["phase1"] == (Verb.RERUN, "key changed since last submit: lr 0.0001 -> 0.01")
    assert found["teacher"] == (Verb.RERUN, "key changed since last submit: input run; needs phase1")


def test_changes_are_told_by_option_recipe_and_input(expand, small):
    before = expand(small, ("sweep: [{seed: 0}, {alignment.guidance: 30, seed: 0}]", ""))
    after = expand(
        small, ("sweep: [{seed: 0}, {alignment.guidance: 30, seed: 0}]", ""), ("guidance: 5", "guidance: 10")
    )
    assert plan.changes(before["phase2"], after["phase2"]) == ["alignment.guidance 5 -> 10"]
    online = expand(small, ("sweep: [{seed: 0}, {alignment.guidance: 30, seed: 0}]", ""), ("features: features, ", ""))
    assert plan.changes(before["phase2"], online["phase2"]) == ["input alignment.features"]


def test_a_milestone_that_was_passed_and_not_kept_is_refused(expand, verbs, stage, small):
    planned = expand(small, ("milestones: [20]", "milestones: [10, 20]"))
    ready(planned, stage)
    phase1 = stage(planned, "phase1")
    phase1.finish(160)
    phase1.checkpoint(240)
    with pytest.raises(PlanError, match="80 images is wanted, but the run is at 240") as caught:
        verbs(planned)
    assert "kept (images seen): 160" in str(caught.value)
    phase1.checkpoint(80)
    assert verbs(planned)["phase1"][0] == Verb.RESUME


def test_equal_keys_are_one_stage(expand, verbs, small):
    planned = expand(CHAIN + "  twin: {kind: command, argv: [a]}\n")
    assert verbs(planned)["twin"] == (Verb.ATTACH, "the same stage as one: their keys are equal")


def test_a_missing_file_of_the_users_is_refused_only_when_it_is_needed(expand, verbs, stage, tmp_path):
    planned = expand("name: e\nstages:\n  a: {kind: command, argv: [x], inputs: {data: {path: here, version: v}}}\n")
    with pytest.raises(PlanError, match="here does not exist"):
        verbs(planned)
    (tmp_path / "here").mkdir()
    assert verbs(planned)["a"][0] == Verb.RUN
    (tmp_path / "here").rmdir()
    stage(planned, "a").finish()
    assert verbs(planned)["a"][0] == Verb.CACHED


def test_a_plan_writes_nothing(expand, verbs, stage, store):
    planned = expand()
    ready(planned, stage)
    before = sorted(store.root.rglob("*"))
    verbs(planned)
    assert sorted(store.root.rglob("*")) == before


def test_a_finished_stage_of_other_images_under_the_same_version_word_is_refused(expand, verbs, stage, small, tmp_path):
    for name in ("ant", "cat"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "pets" / name / f"{number}.png").write_bytes(b"")
    own = small.replace(
        "mnist5k, resolution: 32, held_out: 500", "{folder: pets, version: v1}, resolution: 32, held_out: 2"
    )
    planned = expand(own)
    found = planned["images"].where["found"]
    assert found["num_images"] == 8
    stage(planned, "images").finish(found=found)
    assert verbs(planned)["images"][0] == Verb.CACHED
    (tmp_path / "pets" / "ant" / "4.png").write_bytes(b"")
    with pytest.raises(PlanError) as caught:
        verbs(expand(own))
    assert str(caught.value) == (
        "images.source.version\n  this source has 9 images, the finished stage had 8\n"
        "  other images need another version word"
    )
    (tmp_path / "pets" / "ant" / "4.png").unlink()
    (tmp_path / "pets" / "ant").rename(tmp_path / "pets" / "bee")
    with pytest.raises(PlanError, match="other classes than the finished stage of this version"):
        verbs(expand(own))
    declared = own.replace("version: v1", "version: v1, num_images: 8, num_classes: 2")
    assert verbs(expand(declared))["images"][0] == Verb.CACHED
