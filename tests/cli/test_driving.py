"""Verbs that drive: submit in all its ways of ending and going on, cancel, retry, on_event."""

import json
import re
import signal
from pathlib import Path

import pytest

from tests.cli.shell import CHAIN, FAILING, SLOW, Shell, wait_until


@pytest.mark.slow
def test_submitting_again_finds_everything_cached(stx: Shell) -> None:
    path = stx.write(CHAIN)
    first = stx("submit", str(path))
    text, page = first.stdout.split()
    assert text.endswith("experiments/chain/report/report.md")
    assert page.endswith("experiments/chain/report/report.html")
    assert Path(text).exists()
    assert Path(page).exists()
    before = sorted(stx.store.stages.glob("*/attempts/*"))
    second = stx("submit", str(path))
    assert "chain: 3 cached" in second.stderr
    assert sorted(stx.store.stages.glob("*/attempts/*")) == before
    assert {line["verb"] for line in stx.json("plan", str(path))["stages"]} == {"cached"}


@pytest.mark.slow
def test_on_event_is_told_of_a_failure_and_of_the_end_once(stx: Shell) -> None:
    path, told = stx.write(FAILING), stx.folder / "told"
    (stx.folder / "c.yaml").write_text(f"poll_s: 0.2\non_event: [sh, -c, 'cat >> {told}']\n")
    for _ in range(2):
        stx("submit", str(path), "--cluster", "c.yaml", code=3)
    events = [json.loads(line) for line in told.read_text().splitlines()]
    assert sorted(event["event"] for event in events) == ["finished", "stage_failed"]
    (failure,) = [event for event in events if event["event"] == "stage_failed"]
    assert failure["stage"] == "bad" and "the reason is here" in Path(failure["log"]).read_text()


@pytest.mark.slow
def test_detached_submit_returns_and_the_same_file_attaches(stx: Shell) -> None:
    path = stx.write(SLOW)
    done = stx("submit", str(path), "--detach")
    assert "detached: process" in done.stderr
    wait_until(lambda: stx.log_says("begun"))
    assert stx.states("slow") == {"slow": "RUNNING"}
    watcher = stx.start("submit", str(path))
    changed = stx.write(SLOW.replace("0.1", "0.2"), "changed.yaml")
    assert "differs from what was submitted" in stx("submit", str(changed), code=2).stderr
    (stx.folder / "go").touch()
    _, errors = watcher.communicate(timeout=60)
    assert watcher.returncode == 0, errors
    assert "is being driven already" in errors
    assert stx.states("slow") == {"slow": "DONE"}


@pytest.mark.slow
def test_accept_code_takes_over_from_a_live_coordinator_and_its_job_runs_on(stx: Shell) -> None:
    path = stx.write(SLOW)
    stx("submit", str(path), "--detach")
    wait_until(lambda: stx.log_says("begun"))
    taker = stx.start("submit", str(path), "--accept-code")
    wait_until(lambda: stx.store.experiment("slow").lease.joinpath("2").exists())
    (stx.folder / "go").touch()
    _, errors = taker.communicate(timeout=60)
    assert taker.returncode == 0, errors
    assert "asking the running coordinator to leave; its jobs run on" in errors
    assert len(list(stx.store.stages.glob("*/attempts/*.intent.json"))) == 1


@pytest.mark.slow
def test_detached_coordinator_leaves_its_words_in_a_log(stx: Shell) -> None:
    (stx.folder / "cluster.yaml").write_text(
        "launcher: local\npoll_s: 0.2\nstages: {command: {mem_gb: 1, time: 20s}}\nstop_lead_s: 5\n"
    )
    done = stx("submit", str(stx.write(FAILING)), "--detach", "--cluster", "cluster.yaml")
    assert "detached" in done.stderr
    wait_until(lambda: "BLOCKED" in stx.states("failing").values())
    assert "failed bad" in stx.store.experiment("failing").log.read_text()


@pytest.mark.slow
def test_interrupt_saves_and_yields_and_the_same_command_goes_on(stx: Shell) -> None:
    path = stx.write(SLOW)
    driver = stx.start("submit", str(path))
    wait_until(lambda: stx.log_says("begun"))
    driver.send_signal(signal.SIGINT)
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 130, errors
    assert (stx.folder / "saved").exists()
    assert "goes on where it stopped" in errors
    assert re.search(r"slow: 1 READY; left .* ago \(Ctrl-C\)", stx("status").stdout)
    (stx.folder / "go").touch()
    stx("submit", str(path))
    assert stx.states("slow") == {"slow": "DONE"}


@pytest.mark.slow
def test_closed_terminal_leaves_and_the_job_runs_on(stx: Shell) -> None:
    path = stx.write(SLOW)
    driver = stx.start("submit", str(path))
    wait_until(lambda: stx.log_says("begun"))
    driver.send_signal(signal.SIGHUP)
    driver.communicate(timeout=60)
    assert driver.returncode == 0
    assert not (stx.folder / "saved").exists()
    (stx.folder / "go").touch()
    wait_until(lambda: any(stx.store.stages.glob("*/artifact.json")))
    wait_until(lambda: stx.states("slow") == {"slow": "DONE"})
    assert stx.json("status")["experiments"][0]["coordinator"] is None


@pytest.mark.slow
@pytest.mark.parametrize("how", ["retry", "submit", "submit --detach"])
def test_cancel_ends_the_job_and_retry_or_another_submit_takes_it_back(stx: Shell, how: str) -> None:
    path = stx.write(SLOW)
    driver = stx.start("submit", str(path))
    wait_until(lambda: stx.log_says("begun"))
    assert "asked the coordinator: cancel 1 stage" in stx("cancel", "slow").stderr
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 3, errors
    assert stx.states("slow") == {"slow": "CANCELLED"}
    (stx.folder / "go").touch()
    if how == "retry":
        stx("retry", "slow")
    assert stx("submit", str(path), "--once", code=0 if how == "retry" else 3).stderr
    detached = ["--detach"] if how == "submit --detach" else []
    again = "what was cancelled runs again: slow" in stx("submit", str(path), *detached).stderr
    assert again is (how != "retry")
    wait_until(lambda: stx.states("slow") == {"slow": "DONE"})


def test_a_cancel_that_would_leave_a_job_running_is_refused_and_cancels_nothing(stx: Shell) -> None:
    path = str(stx.write(SLOW))
    stx("submit", path, "--once")
    wait_until(lambda: stx.log_says("begun"))
    (stx.folder / "far.yaml").write_text("launcher: ray\nray: {address: '127.0.0.1:1'}\n")
    told = stx("cancel", "slow", "--cluster", "far.yaml", code=2).stderr
    assert "error: --cluster\n  jobs of slow are on local:" in told and "cluster far does not reach" in told
    assert stx.states("slow") == {"slow": "ELSEWHERE"}, "out of reach, as far as that cluster file goes"
    stx("cancel", "slow")
    wait_until(lambda: any(stx.store.stages.glob("*/attempts/001/outcome-0.json")))
    stx("submit", path, "--once", code=3)
    assert stx.states("slow") == {"slow": "CANCELLED"}


def test_what_is_done_is_neither_cancelled_nor_retried(finished: Shell) -> None:
    for verb in ("cancel", "retry"):
        told = finished(verb, "chain/*").stderr
        assert f"nothing to {verb} in chain: 3 stages already done" in told
        assert "next: stx status 'chain/*'" in told
    assert set(finished.states("chain").values()) == {"DONE"}
