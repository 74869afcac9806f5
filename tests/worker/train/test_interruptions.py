"""Uninterrupted equals interrupted, bit for bit: 1 and 2 ranks, ZeRO 0 to 3, teacher online and from a cache.

The interrupted run is stopped and killed before, at and between its milestones, and before and after the step at which
its alignment stops.
"""

import itertools
import re
import signal

import pytest

from jobs import outcome
from stx.worker import checkpoint as checkpoints

BATCH = 8
MILESTONES = (8 * BATCH, 16 * BATCH, 24 * BATCH)
STOP_STEP = 12
# What ends each attempt, and the images it should have begun at. Only milestones and stops are saved.
INTERRUPTIONS = [
    ({"stop_at": 5}, 0),
    ({"kill": ["rename", "aside"], "when": "before"}, 5),  # the checkpoint of the first milestone is lost
    ({"kill": ["fsync", "checkpoints"], "when": "after"}, 5),  # it is there, the milestone is not published
    ({"stop_at": 2}, 8),
    ({"stop_at": 4}, 10),  # past stop_step
    ({"kill": ["write", "manifest"], "when": "inside"}, 14),
    ({"stop_at": 8}, 14),  # past a milestone
    ({}, 22),
]
ALL = list(itertools.product((1, 2), (0, 1, 2, 3), ("online", "cached")))
SAMPLE = [(1, 1, "online"), (2, 3, "cached")]


@pytest.fixture(scope="module")
def teaching(tmp_path_factory, new_workshop, all_runs, as_source):
    """A teacher and its cache, in a store of their own, as inputs of a run."""
    runs = all_runs(new_workshop(tmp_path_factory.mktemp("teaching")), as_source)
    teacher = runs.teacher()
    online = {"alignment.teacher": teacher}
    return {"online": online, "cached": online | {"alignment.features": runs.features(teacher)}}


def options_of(ranks, stage, inputs):
    return {"ranks": ranks, "wants": MILESTONES, "inputs": inputs, "layout": {"zero_stage": stage}}


def place(points, wanted):
    """The number of the point in a save."""
    return 1 + points.index(wanted)


def interrupt(forked, attempt, *, ranks, how, points):
    """Run an attempt to its end of this kind."""
    if "kill" not in how:
        stop_at = {str(ranks - 1): how["stop_at"]} if how else None
        assert set(forked.run(attempt, ranks=ranks, stop_at=stop_at)["codes"]) == {75 if how else 0}
        return
    kill = {"rank": 0, "save": 1, "point": place(points, how["kill"]), "when": how["when"], "share": 0.5}
    # The other rank may have seen that this one is gone before it was ended, too.
    assert forked.run(attempt, ranks=ranks, kill=kill)["codes"][0] == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "stage", "features"),
    [pytest.param(*one, marks=[] if one in SAMPLE else [pytest.mark.full]) for one in ALL],
)
def test_an_interrupted_run_ends_in_the_bits_of_an_untouched_one(
    new_runs, forked, made, teaching, ranks, stage, features
):
    whole_runs, runs = new_runs("whole"), new_runs("interrupted")
    alignment = runs.guided | {"stop_step": STOP_STEP}
    options = options_of(ranks, stage, teaching[features]) | {"alignment": alignment}
    whole = whole_runs.attempt(**options)
    done = forked.run(whole, ranks=ranks)
    assert set(done["codes"]) == {0}, whole.folder.log(0).read_text()[-3000:]
    aligned = [line["images"] for line in made(whole).metrics if line.get("alignment.guided_teacher")]
    assert max(aligned) <= STOP_STEP * BATCH < made(whole).metrics[-1]["images"]
    found = {}
    for how, begin in INTERRUPTIONS:
        attempt = runs.attempt(**options)
        interrupt(forked, attempt, ranks=ranks, how=how, points=done["points"][0])
        assert made(attempt).metrics[0]["images"] == (begin + 1) * BATCH, how
        found |= made(attempt).losses
    assert found == made(whole).losses
    for images in MILESTONES:
        assert made(attempt, images).digest == made(whole, images).digest
    made(attempt, MILESTONES[-1]).lineage()


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [pytest.param(1), pytest.param(2, marks=pytest.mark.full)])
def test_a_worker_near_its_deadline_leaves_while_a_save_would_not_fit(runs, forked, ranks):
    """Every fsync of a save takes 0.25 s, so a save takes more than a second; every step is saved."""
    options = {"ranks": ranks, "every_s": 0, "wants": (10_000 * BATCH,)}
    attempt = runs.attempt(**options)
    assert set(forked.run(attempt, ranks=ranks, deadline_s=8, fsync_s=0.25)["codes"]) == {75}
    (newest,) = checkpoints.found(attempt.stage.checkpoints)[-1:]
    saved = checkpoints.opened(newest)
    assert checkpoints.verify(newest) is None
    assert not list(attempt.stage.checkpoints.glob(".*")), "no save was begun that was not ended"
    for rank in range(ranks):
        said = outcome.read(attempt.folder, rank).info
        assert (said["saved"], said["unsaved_images"]) == (False, BATCH)
        assert said["images"] == saved.images + BATCH
    assert re.search(r"save not begun expected_seconds=[1-9]", attempt.folder.log(0).read_text())
    again = runs.attempt(**options)
    assert set(forked.run(again, ranks=ranks, stop_at={"0": 3})["codes"]) == {75}
    assert outcome.read(again.folder, 0).info["recomputed_images"] == BATCH
