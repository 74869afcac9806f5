"""The command line as people and scripts use it: real processes, real stores, experiments of `command` stages."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stx.coordinator import lease
from stx.paths import Store

ROOT = Path(__file__).resolve().parents[1]
CHAIN = """
name: chain
stages:
  first: {kind: command, argv: [sh, -c, "echo one; echo 1 > $STX_OUTPUT/x"]}
  second:
    kind: command
    argv: [sh, -c, "cat $STX_INPUT_FIRST/x > $STX_OUTPUT/y"]
    inputs: {first: first}
    sweep: {seed: [0, 1]}
"""
# Runs until GO exists; saves (makes SAVED) and yields when asked to.
SLOW = """
name: slow
stages:
  slow:
    kind: command
    argv:
      - sh
      - -c
      - |
        trap 'touch SAVED; exit 75' USR2 TERM
        echo begun
        for i in $(seq 300); do test -e GO && break; sleep 0.1; done
        touch $STX_OUTPUT/x
"""
FAILING = """
name: failing
stages:
  bad: {kind: command, argv: [sh, -c, "echo the reason is here; test -e GO && touch $STX_OUTPUT/x"]}
  after: {kind: command, argv: [sh, -c, "touch $STX_OUTPUT/x"], inputs: {bad: bad}}
  other: {kind: command, argv: [sh, -c, "touch $STX_OUTPUT/x"]}
"""


class Shell:
    """Runs stx in a folder with a store and slots of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "store")
        scrubbed = {name: value for name, value in os.environ.items() if not name.startswith("STX_")}
        self.env = scrubbed | {
            "PYTHONPATH": str(ROOT),
            "STX_STORE": str(self.store.root),
            "STX_SLOTS": str(folder / "slots"),
            "STX_CORES": "2",
            "NO_COLOR": "1",
        }

    def write(self, text: str, name: str = "e.yaml") -> Path:
        """An experiment file; GO stands for a file in this folder."""
        path = self.folder / name
        path.write_text(text.replace("GO", str(self.folder / "go")).replace("SAVED", str(self.folder / "saved")))
        return path

    def __call__(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "stx.cli", *arguments],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "stx.cli", *arguments],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def json(self, *arguments: str) -> Any:
        answer = json.loads(self(*arguments, "--json").stdout)
        assert answer["schema"] == 1
        return answer

    def states(self, experiment: str) -> dict[str, str]:
        (one,) = self.json("status", experiment)["experiments"]
        return {stage["name"]: stage["state"] for stage in one["stages"]}

    def log_says(self, text: str) -> bool:
        return any(text in path.read_text() for path in self.store.stages.glob("*/attempts/*/rank-0.log"))


def wait_until(true: Callable[[], bool], *, seconds: float = 30.0) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def stx(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """CHAIN, submitted to its end; for tests that only read."""
    shell = Shell(tmp_path_factory.mktemp("finished"))
    shell("submit", str(shell.write(CHAIN)))
    return shell


def test_help_needs_neither_torch_nor_pydantic_nor_yaml(stx: Shell) -> None:
    program = (
        "import sys; from stx.cli import app; app(['--help'], standalone_mode=False); "
        "heavy = {'torch', 'pydantic', 'yaml', 'matplotlib', 'numpy', 'rich'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", program], env=stx.env, check=True, capture_output=True)


VERBS = ["plan", "submit", "status", "logs", "show", "cancel", "retry", "report", "doctor", "gc", "export"]


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_shows_an_example(stx: Shell, verb: str) -> None:
    assert f"Example: stx {verb}" in stx(verb, "--help").stdout


def test_plan_writes_nothing_and_says_why(stx: Shell) -> None:
    path = stx.write(CHAIN)
    done = stx("plan", str(path))
    assert re.search(r"first +[0-9a-f]{8} +run +no attempt yet", done.stdout)
    assert re.search(r"second:seed=1 +[0-9a-f]{8} +wait +needs first", done.stdout)
    assert "next: stx submit" in done.stderr
    assert not stx.store.root.exists()


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


def test_status_shows_and_show_logs_take_names_prefixes_and_globs(finished: Shell) -> None:
    assert "chain: 3 DONE" in finished("status").stdout
    key = finished.json("show", "first")["node"]["key"]
    for pattern in ("first", key[:4], f"chain/{key[:8]}", "fir*"):
        assert finished.json("show", pattern)["node"]["name"] == "first"
    assert set(finished.states("second")) == {"second:seed=0", "second:seed=1"}
    assert finished("logs", "first").stdout.splitlines()[0] == "one"
    assert "payload digest" in finished("show", "second:seed=0").stdout


def test_show_tells_options_attempts_and_digests(finished: Shell) -> None:
    told = finished("show", "second:seed=1").stdout
    assert re.search(r"^ +seed +1$", told, re.MULTILINE)
    assert re.search(r"^  d version +1$", told, re.MULTILINE)
    assert re.search(r"^  inputs.first: first \(command [0-9a-f]{8}\)$", told, re.MULTILINE)
    assert re.search(r"^1 +COMPLETED +- .*[0-9a-f]{8}$", told, re.MULTILINE)
    answer = finished.json("show", "second:seed=1")
    assert {"path": "version", "value": "1", "default": True} in answer["options"]
    assert answer["attempts"][0]["result"] == "COMPLETED"
    assert list(answer["results"][0]["files"]) == ["y"]


def test_show_against_another_stage_tells_what_differs(finished: Shell) -> None:
    told = finished("show", "second:seed=0", "--against", "second:seed=1").stdout
    assert "seed  0 -> 1" in told
    assert "the same: inputs.first" in told
    answer = finished.json("show", "second:seed=0", "--against", "second:seed=1")
    assert not answer["same"]
    assert answer["difference"]["options"] == [{"path": "seed", "here": 0, "there": 1}]


def test_unknown_name_says_what_is_known(finished: Shell) -> None:
    done = finished("show", "secnd", code=2)
    assert 'did you mean "second"?' in done.stderr
    assert "known: chain, first, second" in done.stderr
    assert 'did you mean "second:seed=1"?' in finished("logs", "second:sed=1", code=2).stderr
    assert "names 2 stages" in finished("show", "second", code=2).stderr


def test_store_that_does_not_exist_is_named(stx: Shell) -> None:
    done = stx("status", code=2)
    assert str(stx.store.root) in done.stderr


def test_configuration_error_names_file_line_and_queues_nothing(stx: Shell) -> None:
    path = stx.write(CHAIN.replace("argv: [sh", "argvv: [sh", 1))
    done = stx("submit", str(path), code=2)
    assert "e.yaml:4: stages.first.argvv" in done.stderr
    assert done.stdout == ""
    assert not stx.store.root.exists()


def test_unwritable_store_is_refused_before_anything_is_queued(stx: Shell) -> None:
    (stx.folder / "file").write_text("")
    done = stx("submit", str(stx.write(CHAIN)), "--store", str(stx.folder / "file" / "store"), code=2)
    assert done.stderr.count("\n") > 0


@pytest.mark.slow
def test_failed_stage_exits_3_shows_the_cause_and_a_retry_finishes(stx: Shell) -> None:
    path = stx.write(FAILING)
    done = stx("submit", str(path), code=3)
    assert "failed bad: " in done.stderr
    assert "next: stx logs failing/bad --failed" in done.stderr
    assert stx.states("failing") == {"bad": "FAILED", "after": "BLOCKED", "other": "DONE"}
    assert "the reason is here" in stx("logs", "bad", "--failed").stdout
    (stx.folder / "go").touch()
    assert "ended" in stx("status", "failing").stdout
    assert "retry 2 stages of failing (bad, after); 1 stage already done" in stx("retry", "failing").stderr
    stx("submit", str(path))
    assert set(stx.states("failing").values()) == {"DONE"}


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
def test_edited_file_is_shown_and_needs_update(stx: Shell) -> None:
    path = stx.write(CHAIN)
    stx("submit", str(path))
    stx.write(CHAIN.replace("[0, 1]", "[0, 2]"))
    done = stx("submit", str(path), code=2)
    assert "added second:seed=2" in done.stderr
    assert "removed second:seed=1" in done.stderr
    assert "--update" in done.stderr
    stx("submit", str(path), "--update")
    assert set(stx.states("chain")) == {"first", "second:seed=0", "second:seed=2"}


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
def test_killed_coordinator_leaves_an_honest_status(stx: Shell) -> None:
    path = stx.write(SLOW)
    driver = stx.start("submit", str(path))
    wait_until(lambda: stx.log_says("begun"))
    driver.kill()
    driver.communicate()
    assert re.search(r"slow: 1 RUNNING; journal from .* ago, coordinator gone", stx("status").stdout)
    (stx.folder / "go").touch()
    stx("submit", str(path))
    assert stx.states("slow") == {"slow": "DONE"}


@pytest.mark.slow
def test_cancel_ends_the_job_and_retry_takes_it_back(stx: Shell) -> None:
    path = stx.write(SLOW)
    driver = stx.start("submit", str(path))
    wait_until(lambda: stx.log_says("begun"))
    assert "asked the coordinator: cancel 1 stage" in stx("cancel", "slow").stderr
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 3, errors
    assert stx.states("slow") == {"slow": "CANCELLED"}
    (stx.folder / "go").touch()
    stx("retry", "slow")
    stx("submit", str(path))
    assert stx.states("slow") == {"slow": "DONE"}


@pytest.mark.slow
def test_logs_follow_until_the_attempt_is_over(stx: Shell) -> None:
    path = stx.write(SLOW)
    stx("submit", str(path), "--detach")
    wait_until(lambda: stx.log_says("begun"))
    follower = stx.start("logs", "slow", "-f")
    time.sleep(0.5)
    (stx.folder / "go").touch()
    output, _ = follower.communicate(timeout=60)
    assert follower.returncode == 0
    assert "begun" in output


def test_export_of_an_experiment_without_numbers_says_so(finished: Shell) -> None:
    folder = finished.folder / "tb"
    assert "nothing is exported" in finished("export", "chain", "--tensorboard", str(folder)).stderr
    assert not folder.exists()
    assert finished.json("export", "chain", "--tensorboard", str(folder))["runs"] == 0


def test_export_to_a_folder_that_is_none_names_its_own_flag(finished: Shell) -> None:
    assert "--tensorboard ''" in finished("export", "chain", "--tensorboard", "", code=2).stderr


def test_what_is_done_is_neither_cancelled_nor_retried(finished: Shell) -> None:
    for verb in ("cancel", "retry"):
        told = finished(verb, "chain/*").stderr
        assert f"nothing to {verb} in chain: 3 stages already done" in told
        assert "next: stx status 'chain/*'" in told
    assert set(finished.states("chain").values()) == {"DONE"}


def test_plan_keeps_every_option_in_the_command_it_ends_with(stx: Shell) -> None:
    (stx.folder / "c.yaml").write_text("poll_s: 0.2\n")
    path = str(stx.write(CHAIN))
    told = stx("plan", path, "--cluster", "c.yaml", "--set", "stages.second.sweep={seed: [3]}").stderr
    assert f"next: stx submit {path} --set 'stages.second.sweep={{seed: [3]}}' --cluster c.yaml\n" in told


def test_report_json_has_the_path(finished: Shell) -> None:
    answer = finished.json("report", "chain")
    assert Path(answer["report"]).read_text().startswith("# chain")
    assert "<h1>chain</h1>" in Path(answer["html"]).read_text()
    assert "no experiment" in finished("report", "chian", code=2).stderr


def test_unexpected_error_is_one_line_and_the_traceback_goes_to_a_file(stx: Shell) -> None:
    stx.store.experiment("chain").graph.mkdir(parents=True)
    done = stx("status", code=1)
    (name,) = re.findall(r"the traceback is in (\S+)", done.stderr)
    assert "IsADirectoryError" in Path(name).read_text()
    Path(name).unlink()


def test_damaged_record_is_named_without_a_traceback(stx: Shell) -> None:
    graph = stx.store.experiment("chain").graph
    graph.parent.mkdir(parents=True)
    for content in ("{", '{"experiment": "chain"}'):
        graph.write_text(content)
        assert "graph.json" in stx("status", code=2).stderr


@pytest.mark.slow
def test_doctor_says_ok_and_fails_with_what_to_do(stx: Shell) -> None:
    (stx.folder / "c.yaml").write_text("stages: {train: {cpus_per_rank: 500}}\n")
    done = stx("doctor", "--cluster", "c.yaml", code=2)
    assert re.search(r"^ok +hard links", done.stdout, re.MULTILINE)
    assert re.search(r"^ok +worker +imports torch", done.stdout, re.MULTILINE)
    assert re.search(r"^FAIL +job sizes .*stages.train: .*\n +ask for less$", done.stdout, re.MULTILINE)
    assert "1 FAIL" in done.stderr
    assert not stx.store.root.exists()


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
