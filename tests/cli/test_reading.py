"""Verbs that read: they say what is, and change nothing."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.shell import CHAIN, FAILING, SLOW, Shell, wait_until

VERBS = ["plan", "submit", "status", "logs", "show", "cancel", "retry", "report", "doctor", "gc", "export"]


def test_help_needs_neither_torch_nor_pydantic_nor_yaml(stx: Shell) -> None:
    program = (
        "import sys; from stx.cli import app; app(['--help'], standalone_mode=False); "
        "heavy = {'torch', 'pydantic', 'yaml', 'matplotlib', 'numpy', 'rich'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", program], env=stx.env, check=True, capture_output=True)


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
    assert "\nran as: 1 rank, 1 thread (attempt 1)\n" in told
    answer = finished.json("show", "second:seed=1")
    assert {"path": "version", "value": "1", "default": True} in answer["options"]
    assert answer["attempts"][0]["result"] == "COMPLETED"
    assert list(answer["results"][0]["files"]) == ["y"]


def test_show_and_logs_say_where_the_threads_were_when_an_attempt_hung(finished: Shell) -> None:
    stacks = Path(finished.json("show", "first")["path"]) / "attempts" / "001" / "stacks-0.txt"
    stacks.write_text("in stuck")
    try:
        assert str(stacks) in finished("show", "first").stdout
        assert str(stacks) in finished("logs", "first").stderr
    finally:
        stacks.unlink()


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


def test_plan_keeps_every_option_in_the_command_it_ends_with(stx: Shell) -> None:
    (stx.folder / "c.yaml").write_text("poll_s: 0.2\n")
    path = str(stx.write(CHAIN))
    told = stx("plan", path, "--cluster", "c.yaml", "--set", "stages.second.sweep={seed: [3]}").stderr
    assert f"next: stx submit {path} --set 'stages.second.sweep={{seed: [3]}}' --cluster c.yaml\n" in told


def test_the_store_of_a_cluster_file_is_in_the_commands_to_copy(stx: Shell) -> None:
    place = stx.folder / "elsewhere"
    (stx.folder / "c.yaml").write_text(f"store: {place}\npoll_s: 0.2\n")
    del stx.env["STX_STORE"]
    told = stx("submit", str(stx.write(CHAIN)), "--cluster", "c.yaml").stderr
    assert f"next: stx status chain --store {place}\n" in told
    assert f"stx report chain --store {place}\n" in told
    assert "DONE" in stx("status", "chain", "--store", str(place)).stdout
    told = stx("plan", str(stx.folder / "e.yaml"), "--cluster", "c.yaml").stderr
    assert f"next: stx submit {stx.folder}/e.yaml --cluster c.yaml\n" in told


def test_report_json_has_the_path(finished: Shell) -> None:
    answer = finished.json("report", "chain")
    assert Path(answer["report"]).read_text().startswith("# chain")
    assert "<h1>chain</h1>" in Path(answer["html"]).read_text()
    assert "no experiment" in finished("report", "chian", code=2).stderr


def test_unexpected_error_is_one_line_and_the_traceback_goes_to_a_file(stx: Shell) -> None:
    (stx.folder / "broken").mkdir()
    (stx.folder / "broken" / "sitecustomize.py").write_text("import os\nos.scandir = lambda path: 1 / 0\n")
    stx.env["PYTHONPATH"] = os.pathsep.join([str(stx.folder / "broken"), stx.env.get("PYTHONPATH", "")])
    stx.store.experiment("chain").graph.parent.mkdir(parents=True)
    done = stx("status", code=1)
    (name,) = re.findall(r"the traceback is in (\S+)", done.stderr)
    assert "ZeroDivisionError" in Path(name).read_text()
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
