"""Verbs around the run itself: gc and smoke runs."""

import re
from pathlib import Path

import pytest

from stx.coordinator import lease
from tests.cli.shell import CHAIN, FAILING, SLOW, Shell, wait_until


@pytest.mark.slow
def test_gc_previews_and_removes_only_what_no_experiment_wants(stx: Shell) -> None:
    path = stx.write(CHAIN)
    stx("submit", str(path))
    nothing = stx("gc")
    assert "nothing may go" in nothing.stdout and "next: stx gc --forget EXPERIMENT" in nothing.stderr
    stx.write(CHAIN.replace("[0, 1]", "[0]"))
    stx("submit", str(path), "--update")
    before = sorted(stx.store.stages.iterdir())
    preview = stx("gc")
    assert re.search(r"^stage +stages/command-[0-9a-f]{12} .* no experiment wants it", preview.stdout, re.MULTILINE)
    assert "next: stx gc --yes" in preview.stderr
    assert sorted(stx.store.stages.iterdir()) == before
    (dropped,) = [Path(one["path"]) for one in stx.json("gc")["garbage"]]
    assert f"pinned {dropped.name}" in stx("gc", "--pin", dropped.name[-12:-8]).stderr
    assert "nothing may go" in stx("gc", "--yes").stdout
    stx("gc", "--unpin", dropped.name)
    assert "removed 1 thing" in stx("gc", "--yes").stderr
    assert sorted(stx.store.stages.iterdir()) == [one for one in before if one != dropped]
    assert 'nothing is called "nothing"' in stx("gc", "--pin", "nothing", code=2).stderr
    assert 'did you mean "chain"?' in stx("gc", "--forget", "chian", code=2).stderr
    assert "removed 3 things" in stx("gc", "--forget", "chain", "--yes").stderr
    assert not list(stx.store.stages.iterdir()) and not list(stx.store.experiments.iterdir())
    stx("submit", str(path))


@pytest.mark.slow
def test_gc_forgets_no_experiment_that_is_being_driven_or_has_jobs(stx: Shell) -> None:
    path = stx.write(SLOW)
    driver = stx.start("submit", str(path))
    wait_until(lambda: stx.log_says("begun"))
    assert "another coordinator drives this experiment" in stx("gc", "--forget", "slow", "--yes", code=6).stderr
    driver.kill()
    driver.communicate()
    assert "has jobs that are not over" in stx("gc", "--forget", "slow", "--yes", code=2).stderr
    (stx.folder / "go").touch()
    stx("submit", str(path))
    assert stx.states("slow") == {"slow": "DONE"}


@pytest.mark.slow
def test_a_smoke_run_goes_before_the_real_one_and_says_what_it_took(stx: Shell) -> None:
    path = stx.write(CHAIN)
    done = stx("submit", str(path), "--smoke")
    assert "smoke: 2 stages as chain-smoke" in done.stderr
    assert re.search(r"second:seed=0 +command +completed +\d+ s", done.stderr)
    assert done.stderr.index("smoke: all done in") < done.stderr.index("second:seed=1 DONE")
    assert set(stx.states("chain-smoke")) == {"first", "second:seed=0"}
    assert set(stx.states("chain").values()) == {"DONE"}
    again = stx("submit", str(path), "--smoke")
    assert "smoke:" not in again.stderr, "everything is cached: there is nothing to try"


@pytest.mark.slow
def test_a_smoke_run_that_fails_shows_the_log_and_starts_nothing_else(stx: Shell) -> None:
    path = stx.write(FAILING)
    done = stx("submit", str(path), "--smoke", code=3)
    assert "failed bad: " in done.stderr
    assert "  the reason is here" in done.stderr
    assert "nothing else was started" in done.stderr
    assert not stx.store.experiment("failing").path.exists()


@pytest.mark.slow
def test_a_detached_smoke_run_is_followed_by_the_real_one(stx: Shell) -> None:
    path = stx.write(SLOW)
    done = stx("submit", str(path), "--smoke", "--detach")
    assert "drives slow-smoke" in done.stderr
    wait_until(lambda: stx.log_says("begun"))
    assert "is being driven already" in stx("submit", str(path), "--smoke", code=6).stderr
    (stx.folder / "go").touch()
    wait_until(lambda: "slow: all 1 stage done" in stx.store.experiment("slow").log.read_text())
    assert "smoke: all done" in stx.store.experiment("slow").log.read_text()


def test_a_smoke_run_is_refused_where_it_would_do_harm_or_come_too_late(stx: Shell) -> None:
    path = stx.write(CHAIN)
    held = lease.acquire(stx.store.experiment("chain"), lease_s=60)
    assert "a smoke run would come too late" in stx("submit", str(path), "--smoke", code=2).stderr
    held.release()
    own = stx.store.experiment("chain-smoke").file
    own.parent.mkdir()
    own.write_text("name: chain-smoke\n")
    assert 'an experiment called "chain-smoke" already' in stx("submit", str(path), "--smoke", code=2).stderr
