"""SIGKILL inside saves, hundreds of times: every next attempt goes on from the newest complete checkpoint, and the
weights at the end are those of a run that was never touched.

A kill falls before, after or inside one write, fsync, rename, unlink or rmdir of a save, of any rank. First the kind of
operation and of file is drawn, then one of that kind: most points are writes of tensors. The seed is printed;
STX_KILL_SEED repeats a schedule.
"""

import os
import random
import signal
from collections import Counter

import pytest

from stx.worker import checkpoint as checkpoints

BATCH = 8
# (ranks, ZeRO stage, kills)
SAMPLE = [(1, 1, 5), (2, 2, 3)]
WHOLE = [*((1, stage, 38) for stage in (0, 1, 2, 3)), *((2, stage, 14) for stage in (0, 1, 2, 3))]


def draw(chooser, points):
    """Where to kill whom."""
    rank = chooser.randrange(len(points))
    kinds = sorted({tuple(point) for point in points[rank]})
    kind = chooser.choice(kinds)
    places = [number for number, point in enumerate(points[rank], start=1) if tuple(point) == kind]
    whens = ["before", "after", "inside"] if kind[0] == "write" else ["before", "after"]
    kill = {"rank": rank, "save": chooser.choice([1, 2]), "point": chooser.choice(places)}
    return kill | {"when": chooser.choice(whens), "share": chooser.random()}, kind


def newest(stage):
    """The images of the newest complete checkpoint. All that bear a checkpoint's name are complete."""
    found = checkpoints.found(stage.checkpoints)
    assert [checkpoints.verify(path) for path in found] == [None] * len(found)
    return checkpoints.opened(found[-1]).images


def killed_in_saves(new_runs, forked, made, *, ranks, stage, kills, seed):
    """What was hit how often."""
    chooser = random.Random(f"{seed} {ranks} {stage}")
    name = f"{ranks}-{stage}"
    options = {"ranks": ranks, "every_s": 0, "layout": {"zero_stage": stage}, "wants": (BATCH * (2 * kills + 8),)}
    whole = new_runs(f"whole-{name}").attempt(**options)
    points = forked.run(whole, ranks=ranks)["points"]
    assert all(points)
    runs, hit = new_runs(f"killed-{name}"), Counter()
    first = runs.attempt(**options)
    assert set(forked.run(first, ranks=ranks, stop_at={"0": 3})["codes"]) == {75}
    for _ in range(kills):
        kill, kind = draw(chooser, points)
        complete = newest(first.stage)
        attempt = runs.attempt(**options)
        codes = forked.run(attempt, ranks=ranks, kill=kill)["codes"]
        # The other rank may have seen that this one is gone before it was ended, too.
        assert codes[kill["rank"]] == -signal.SIGKILL, (kill, codes, attempt.folder.path)
        assert made(attempt).metrics[0]["images"] == complete + BATCH
        assert newest(first.stage) >= complete
        hit[kind] += 1
    last = runs.attempt(**options)
    assert set(forked.run(last, ranks=ranks)["codes"]) == {0}
    assert made(last, *options["wants"]).digest == made(whole, *options["wants"]).digest
    made(last, *options["wants"]).lineage()
    return hit


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "layouts", [pytest.param(SAMPLE, id="sample"), pytest.param(WHOLE, id="whole", marks=pytest.mark.full)]
)
def test_a_run_killed_inside_saves_goes_on_from_a_complete_checkpoint(new_runs, forked, made, record_property, layouts):
    seed = int(os.environ.get("STX_KILL_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
    hit = Counter()
    for ranks, stage, kills in layouts:
        found = killed_in_saves(new_runs, forked, made, ranks=ranks, stage=stage, kills=kills, seed=seed)
        hit += found
    told = ", ".join(f"{operation} of {file} {count}" for (operation, file), count in sorted(hit.items()))
    total = sum(hit.values())
    record_property("figures", f"seed {seed}: {total} kills inside saves, {total} resumes from a complete one: {told}")
    assert total == sum(kills for _, _, kills in layouts)
