"""A program of the user's as a stage."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stx import records
from stx.errors import DataError, StageFailed
from stx.spec import Artifact
from stx.worker import command
from stx.worker.attempt import Yielded


def program(code: str) -> dict[str, Any]:
    return {
        "argv": [
            sys.executable,
            "-c",
            f"import os, sys, time, signal, pathlib\nout = pathlib.Path(os.environ['STX_OUTPUT'])\n{code}",
        ]
    }


def attempt_of(
    workshop, code: str, *, inputs: Mapping[str, Any] | None = None, external: Mapping[str, str] | None = None
):
    return workshop.attempt("command", science=program(code), inputs=inputs, where={"inputs": dict(external or {})})


def published(attempt) -> dict[str, str]:
    return dict(Artifact.parse(records.read(attempt.stage.result.artifact)).files)


def test_what_the_program_leaves_becomes_the_payload(workshop) -> None:
    attempt = attempt_of(
        workshop, "(out / 'b').mkdir(); (out / 'b/c.txt').write_text('deep'); (out / 'a').write_text('flat')"
    )
    command.run(attempt)
    assert sorted(published(attempt)) == ["a", "b/c.txt"]
    assert (attempt.stage.payload / "b" / "c.txt").read_text() == "deep"
    assert published(attempt)["a"] == records.file_digest(attempt.stage.payload / "a")
    assert not (attempt.folder.path / "output").exists()


def test_the_environment_names_inputs_output_and_attempt(workshop, as_source, tmp_path: Path) -> None:
    first = attempt_of(workshop, "(out / 'data').write_text('from the first')")
    command.run(first)
    (tmp_path / "mine").mkdir()
    code = """
import json
seen = {name: os.environ[name] for name in ('STX_INPUT_MY_DATA', 'STX_INPUT_MINE', 'STX_ATTEMPT')}
seen['content'] = (pathlib.Path(os.environ['STX_INPUT_MY_DATA']) / 'data').read_text()
(out / 'seen.json').write_text(json.dumps(seen))
"""
    second = attempt_of(
        workshop, code, inputs={"inputs.my-data": as_source(first)}, external={"mine": str(tmp_path / "mine")}
    )
    command.run(second)
    assert json.loads((second.stage.payload / "seen.json").read_text()) == {
        "STX_INPUT_MY_DATA": str(first.stage.payload),
        "STX_INPUT_MINE": str(tmp_path / "mine"),
        "STX_ATTEMPT": str(second.folder.path),
        "content": "from the first",
    }


def test_an_external_input_that_changed_is_refused(workshop, tmp_path: Path) -> None:
    file = tmp_path / "mine"
    file.write_text("one")
    code, external = "sys.exit(75)", {"mine": str(file)}
    with pytest.raises(Yielded):
        command.run(attempt_of(workshop, code, external=external))
    file.write_text("another")
    with pytest.raises(DataError, match="mine changed"):
        command.run(attempt_of(workshop, code, external=external))


def test_a_failure_tells_the_exit_code_and_the_last_lines_of_the_log(workshop) -> None:
    attempt = attempt_of(workshop, "(out / 'half').write_text(''); sys.exit(3)")
    attempt.folder.log(0).write_text("first line\nthe disk of dreams is full\n")
    with pytest.raises(StageFailed, match=r"exit code 3[\s\S]*the disk of dreams is full"):
        command.run(attempt)
    assert not attempt.stage.payload.exists()
    assert not attempt.stage.result.artifact.exists()


def test_a_signal_that_nobody_asked_for_is_a_failure(workshop) -> None:
    with pytest.raises(StageFailed, match="signal SIGTERM"):
        command.run(attempt_of(workshop, "os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)"))


def test_a_program_that_cannot_be_started_is_named(workshop) -> None:
    attempt = workshop.attempt("command", science={"argv": ["/no/such/program"]}, where={"inputs": {}})
    with pytest.raises(StageFailed, match=r"/no/such/program[\s\S]*cannot be started"):
        command.run(attempt)


def test_a_program_that_saved_goes_on_from_what_it_left(workshop) -> None:
    code = "(out / 'saved').exists() or ((out / 'saved').write_text('1'), sys.exit(75))"
    with pytest.raises(Yielded):
        command.run(attempt_of(workshop, code))
    second = attempt_of(workshop, code)
    command.run(second)
    assert second.number == 2
    assert list(published(second)) == ["saved"]


def test_what_a_killed_attempt_left_is_not_published(workshop) -> None:
    first = attempt_of(workshop, "(out / 'whole').write_text('1')")
    (first.folder.path / "output").mkdir()
    (first.folder.path / "output" / "half").write_text("0")
    second = attempt_of(workshop, "(out / 'whole').write_text('1')")
    command.run(second)
    assert list(published(second)) == ["whole"]


def test_a_kill_while_publishing_does_not_mix_two_runs(workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "[(out / name).write_text(str(time.monotonic_ns())) for name in 'ab']"

    def killed(path: Path, chunks: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(command.publish, "publish_chunks", killed)
        command.run(attempt_of(workshop, code))
    second = attempt_of(workshop, code)
    written = {path.name: path.read_text() for path in (second.stage.path / "output-finished").iterdir()}
    command.run(second)
    assert {name: (second.stage.payload / name).read_text() for name in "ab"} == written
    assert sorted(path.name for path in second.stage.path.glob("output*")) == []


def test_links_in_the_output_are_refused(workshop) -> None:
    attempt = attempt_of(workshop, "(out / 'a').write_text(''); (out / 'passwords').symlink_to('/etc/passwd')")
    with pytest.raises(DataError, match="passwords"):
        command.run(attempt)
    assert not attempt.stage.payload.exists()


@pytest.mark.parametrize("handler", ["", "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))"])
def test_a_request_to_stop_reaches_the_program_and_ends_in_a_yield(workshop, stop, handler: str) -> None:
    attempt = attempt_of(workshop, f"{handler}\n(out / 'ready').write_text('')\ntime.sleep(60)")

    def when_ready() -> None:
        while not (attempt.folder.path / "output" / "ready").exists():
            time.sleep(0.02)
        stop.now()

    watcher = threading.Thread(target=when_ready)
    watcher.start()
    began = time.monotonic()
    with pytest.raises(Yielded):
        command.run(attempt)
    watcher.join()
    assert time.monotonic() - began < 20
    assert attempt.folder.heartbeat.exists()


def test_two_runs_leave_equal_payload_digests(workshop, payload_digest) -> None:
    code = "[(out / name).write_text(name) for name in 'cab']"
    first = attempt_of(workshop, code)
    command.run(first)
    before = payload_digest(first)
    first.stage.result.artifact.unlink()
    again = attempt_of(workshop, code)
    command.run(again)
    assert payload_digest(again) == before


def test_it_starts_without_torch() -> None:
    code = "import sys, stx.worker.command; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
