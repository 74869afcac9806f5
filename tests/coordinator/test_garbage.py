"""gc: what may go and what stays; killed at every instruction, and with a submit at the same moment."""

import contextlib
import json
import os

import pytest

from jobs import files
from jobs.spec import JobState
from stx.coordinator import lease, roots, sweep
from stx.coordinator.garbage import garbage
from stx.errors import StoreError

FOUR = [("stage", "evaluate"), ("stage", "freeze"), ("stage", "sample"), ("stage", "train")]


def look(world, **options):
    return roots.roots(world.store, launcher=world.launcher, **options)


def find(world, **options):
    return garbage(world.store, look(world, **options))


def named(found):
    return sorted((one.kind, one.path.name.rpartition("-")[0] or one.path.name) for one in found)


def gc(world):
    return sweep.sweep(world.store, find(world), lambda: look(world))


def age(path, seconds):
    now = path.lstat().st_mtime
    os.utime(path, (now - seconds, now - seconds), follow_symlinks=False)


def edited(world, sim):
    """An experiment that was finished, and then lost all but its images: four stages are wanted no more."""
    world.start(sim.small_graph("a"))
    world.finish()
    world.leave("a")
    before = world.digests()
    world.start(sim.single("a"))
    world.finish()
    world.leave("a")
    return before


def test_nothing_of_a_finished_experiment_may_go(world, sim):
    world.start(sim.small_graph("a"))
    world.finish()
    assert find(world) == []


def test_what_an_edit_dropped_may_go_and_what_another_experiment_wants_stays(world, sim):
    edited(world, sim)
    world.start(sim.small_graph("b", wants=(2,)))
    world.finish()
    assert find(world) == []
    world.leave("b")
    assert named(find(world, forget="b")) == FOUR


def test_removed_stages_are_gone_and_are_made_again_when_they_are_wanted_again(world, sim):
    before = edited(world, sim)
    sizes = {one.path.name: one.bytes for one in find(world)}
    assert all(size > 0 for size in sizes.values())
    swept = gc(world)
    assert {one.path.name for one in swept.removed} == set(sizes)
    assert not world.store.trash.exists()
    assert find(world) == []
    again = world.start(sim.small_graph("a"))
    world.finish()
    assert again.state.exit_code == 0
    assert before.items() <= world.digests().items()


def test_an_unwanted_stage_stays_with_its_inputs_while_a_job_works_on_it(world, sim):
    world.start(sim.small_graph("a"))
    world.rounds(1)
    world.run_jobs()
    world.rounds(1)
    (job,) = world.launcher.live()
    world.launcher.start(job)
    world.leave("a")
    world.start(sim.single("a", "classifier"))
    world.rounds(1)
    assert named(find(world)) == []
    kept = look(world)
    assert sorted(kept.stages.values()) == [
        "attempt 1 of a on HOST is not over".replace("HOST", os.uname().nodename),
        f"{job.folder.path.parent.parent.name} was made from it",
        "wanted by a",
    ]
    job.state = JobState.UNKNOWN
    assert named(find(world)) == [], "no answer is no verdict"
    job.state = JobState.ENDED
    assert named(find(world)) == [("stage", "images"), ("stage", "train")], "its launcher says that it is gone"


def test_an_attempt_of_a_launcher_out_of_reach_is_never_taken_for_dead(world, sim):
    world.start(sim.single("a"))
    world.rounds(1)
    world.launcher.live()[0].state = JobState.ENDED
    world.kill("a")
    assert roots.roots(world.store, launcher=sim.Launcher("far"), forget="a").alive


def test_a_pinned_stage_stays_with_all_that_it_was_made_from(world, sim):
    edited(world, sim)
    (sample,) = [one.path.name for one in find(world) if one.path.name.startswith("sample")]
    world.store.pins.mkdir()
    world.store.pin(sample).write_text("{}")
    assert named(find(world)) == [("stage", "evaluate"), ("stage", "freeze")]
    world.store.pin(sample).unlink()
    assert named(find(world)) == FOUR


def checkpoints(world, kind):
    (stage,) = [stage for stage in roots.stage_dirs(world.store) if stage.path.name.startswith(kind)]
    for name in ("2-001", "4-001", "4-002", ".6-002.aside"):
        (stage.checkpoints / name).mkdir(parents=True, exist_ok=True)
        (stage.checkpoints / name / "rank-0.safetensors").write_bytes(bytes(1000))
    return stage


def test_a_finished_run_keeps_its_newest_checkpoint_and_other_kinds_keep_none(world, sim):
    world.start(sim.small_graph("a"))
    world.finish()
    train, images = checkpoints(world, "train"), checkpoints(world, "images")
    found = {str(one.path.relative_to(world.store.stages)) for one in find(world)}
    assert found == {f"{train.path.name}/checkpoints/{name}" for name in ("2-001", "4-001")} | {
        f"{images.path.name}/checkpoints/{name}" for name in ("2-001", "4-001", "4-002")
    }
    gc(world)
    assert sorted(path.name for path in train.checkpoints.iterdir()) == [".6-002.aside", "4-002"]


def test_checkpoints_of_unfinished_and_pinned_stages_stay(world, sim):
    world.start(sim.small_graph("a", wants=(2,)))
    world.finish()
    train = checkpoints(world, "train")
    assert len(find(world)) == 2
    world.store.pins.mkdir()
    world.store.pin(train.path.name).write_text("{}")
    assert find(world) == []
    world.store.pin(train.path.name).unlink()
    world.leave("a")
    world.start(sim.small_graph("a", wants=(2, 4)))
    assert find(world) == [], "more is wanted of it now"


def test_old_leftovers_go_young_ones_and_those_of_a_live_attempt_stay(world, sim):
    world.start(sim.small_graph("a"))
    world.rounds(1)
    stage = next(iter(roots.stage_dirs(world.store)))
    old, young = stage.path / ".artifact.json.1-ab.tmp", stage.path / ".artifact.json.2-cd.tmp"
    for path in (old, young):
        path.write_bytes(bytes(10))
    age(old, 4000)
    assert find(world) == [], "its writer may live"
    world.finish()
    assert [one.path for one in find(world)] == [old]
    output = stage.attempt(1).output
    output.mkdir()
    age(output, 4000)
    assert [one.path for one in find(world)] == [old, output]
    gc(world)
    assert young.exists() and not old.exists()


def test_sources_stay_while_anything_may_run_from_them_and_a_day_longer(world, sim):
    for digest in ("old", "new", "code1", "held"):
        world.store.code(digest).mkdir(parents=True)
    for digest in ("old", "code1", "held"):
        age(world.store.code(digest), 100_000)
    world.start(sim.single("a"))  # its attempt says code1
    world.rounds(1)
    held = lease.acquire(world.store.experiment("b"), lease_s=20, code="held")
    world.store.experiment("b").graph.write_text(json.dumps(sim.single("b").dump()))
    assert named(find(world)) == [("code", "old")]
    world.finish()
    held.release()
    assert named(find(world)) == [("code", "code1"), ("code", "held"), ("code", "old")]


def test_a_stage_that_was_claimed_between_the_preview_and_the_removal_stays(world, sim):
    before = edited(world, sim)
    found = find(world)
    world.start(sim.small_graph("a"))
    swept = sweep.sweep(world.store, found, lambda: look(world))
    assert swept.removed == [] and len(swept.kept) == 4
    assert before.items() <= world.digests().items()


class Killed(BaseException):
    """The process ends here."""


class Calls:
    """Counts changes to the file system, and acts before the n-th."""

    def __init__(self, monkeypatch, *, at, act):
        self.left, self.act = at, act
        for name in ("rename", "mkdir", "rmdir", "unlink", "link"):
            monkeypatch.setattr(os, name, self.counted(getattr(os, name)))

    def counted(self, call):
        def counted(*arguments, **options):
            self.left -= 1
            if self.left == -1:
                self.act()
            return call(*arguments, **options)

        return counted


def kill():
    raise Killed


STEPS = pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.full)])


@STEPS
@pytest.mark.parametrize("wanted_again", [False, True])
def test_a_gc_that_is_killed_anywhere_costs_nothing_that_is_wanted_and_the_next_one_ends_it(
    new_world, sim, monkeypatch, wanted_again, step
):
    survived, at = False, 0
    while not survived:
        world = new_world()
        before = edited(world, sim)
        found = find(world)
        with monkeypatch.context() as patch:
            calls = Calls(patch, at=at, act=kill)
            with contextlib.suppress(Killed):
                sweep.sweep(world.store, found, lambda world=world: look(world))
        survived = calls.left >= 0
        if wanted_again:
            coordinator = world.start(sim.small_graph("a"))
            gc(world)
            world.finish()
            assert coordinator.state.exit_code == 0, f"killed before call {at}"
            assert before.items() <= world.digests().items(), f"killed before call {at}"
        gc(world)
        assert not world.store.trash.exists()
        assert find(world) == []
        at += step
    assert at > 30, "the loop went through all calls"


@STEPS
def test_a_submit_at_any_moment_of_a_gc_gets_its_results(new_world, sim, monkeypatch, step):
    survived, at = False, 0
    while not survived:
        world = new_world()
        before = edited(world, sim)
        found, started = find(world), []

        def submit(world=world, started=started):
            started.append(world.start(sim.small_graph("a")))
            world.rounds(1)

        with monkeypatch.context() as patch:
            calls = Calls(patch, at=at, act=submit)
            sweep.sweep(world.store, found, lambda world=world: look(world))
        survived = not started
        if started:
            world.finish()
            assert started[0].state.exit_code == 0, f"submitted before call {at}"
            assert before.items() <= world.digests().items(), f"submitted before call {at}"
            world.check()
        assert calls.left < 0 or survived
        at += step
    assert at > 30


def test_two_gcs_at_once_remove_everything_once(world, sim, monkeypatch):
    edited(world, sim)
    found = find(world)
    with monkeypatch.context() as patch:
        Calls(patch, at=7, act=lambda: gc(world))
        sweep.sweep(world.store, found, lambda: look(world))
    gc(world)
    assert find(world) == [] and not world.store.trash.exists()
    assert [stage.path.name.split("-")[0] for stage in roots.stage_dirs(world.store)] == ["images"]


def test_what_cannot_be_removed_is_said_and_the_rest_goes(world, sim, monkeypatch):
    edited(world, sim)
    found, real = find(world), os.rename

    def rename(source, target):
        if "train-" in str(source):
            raise PermissionError(13, "Permission denied")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    swept = sweep.sweep(world.store, found, lambda: look(world))
    ((path, why),) = swept.failed
    assert "train-" in path.name and why == "Permission denied"
    assert len(swept.removed) == 3 and path.exists()


def test_a_graph_that_cannot_be_read_stops_everything(world, sim):
    edited(world, sim)
    files.write(world.store.experiment("a").graph, b"{}")
    with pytest.raises(StoreError) as caught:
        find(world)
    assert str(caught.value).startswith(str(world.store.experiment("a").graph))


def test_a_planted_link_is_named_and_nothing_is_removed_through_it(world, sim, tmp_path):
    edited(world, sim)
    (tmp_path / "elsewhere" / "checkpoints" / "5-001").mkdir(parents=True)
    (tmp_path / "elsewhere" / "precious").write_text("mine")
    before = sorted((tmp_path / "elsewhere").rglob("*"))
    unwanted = next(one.path for one in find(world) if one.kind == "stage")
    for link in (world.store.stages / "train-0123456789ab", unwanted / "attempts", world.store.trash):
        aside = link.with_name("aside-0123456789ab")
        if link.exists():
            link.rename(aside)
        link.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(StoreError, match="symbolic link") as error:
            gc(world)
        assert error.value.where == str(link)
        link.unlink()
        if aside.exists():
            aside.rename(link)
    (unwanted / "output").symlink_to(tmp_path / "elsewhere")
    gc(world)
    assert not unwanted.exists()
    assert sorted((tmp_path / "elsewhere").rglob("*")) == before


@pytest.mark.parametrize("origin", ["../outside", "/tmp/outside", "stages/../../outside", "pins/x", "stages"])
def test_what_lies_in_the_trash_goes_back_into_the_store_or_nowhere(world, sim, origin):
    world.start(sim.single("a"))
    entry = world.store.trash / "0123"
    (entry / "content").mkdir(parents=True)
    (entry / "origin").write_text(origin)
    with pytest.raises(StoreError, match="outside the store's folders"):
        gc(world)
    assert (entry / "content").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's file")
def test_whose_a_thing_is_that_may_go_is_said(world, sim):
    edited(world, sim)
    found = find(world)
    os.chown(found[0].path, 4242, 4242)
    assert [one.user for one in find(world)] == ["user 4242", *[""] * (len(found) - 1)]
