import errno
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors import SafetensorError

from jobs import outcome
from jobs.rendezvous import NoRendezvous
from jobs.spec import Cause, Result
from stx import records
from stx.errors import DataError, StxError
from stx.worker import entry
from stx.worker.attempt import BadNode, NonFinite

SHAPE = {"depth": 2, "width": 32, "heads": 2, "patch": 2, "in_channels": 4, "input_size": 8, "num_classes": 10}
SHAPE |= {"qk_norm": False}
HEAD = {
    "method": "velocity_head",
    "head_block": 1,
    "weight": 0.5,
    "window_reduction": "in_window",
    "window": [0.4, 0.7],
}
HEAD |= {"projector_width": 16, "stop_step": None}
GUIDED = HEAD | {"method": "guided_teacher", "student_block": 1, "teacher_block": 2, "guidance": 5.0}


def raised(error, *, cause=None):
    try:
        raise error from cause
    except type(error) as one:
        return one


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (raised(StxError("what", where="where", hint="hint")), Cause.USER),
        (raised(ValueError("bad")), Cause.USER),
        (raised(MemoryError()), Cause.OOM),
        (raised(torch.OutOfMemoryError("CUDA out of memory")), Cause.OOM),
        (raised(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")), Cause.OOM),
        (raised(OSError(errno.ENOSPC, "No space left on device")), Cause.NO_SPACE),
        (raised(OSError(errno.EDQUOT, "Disk quota exceeded")), Cause.NO_SPACE),
        (raised(DataError("cannot write"), cause=OSError(errno.ENOSPC, "No space")), Cause.NO_SPACE),
        (raised(OSError(errno.EIO, "Input/output error")), Cause.NODE),
        (raised(DataError("cannot be read"), cause=OSError(errno.ESTALE, "Stale file handle")), Cause.NODE),
        (raised(SafetensorError("I/O error: Input/output error (os error 5)")), Cause.NODE),
        (raised(BadNode("n1: GPU 0 of this rank: others use 20.0 GiB")), Cause.NODE),
        (raised(OSError(errno.ENOMEM, "Cannot allocate memory")), Cause.OOM),
        (raised(OSError(errno.EACCES, "Permission denied")), Cause.USER),
        (raised(NonFinite("five in a row")), Cause.NAN),
        (raised(RuntimeError("[/x/gloo/transport/tcp/pair.cc:561] Connection closed by peer")), Cause.LOST),
        (raised(torch.distributed.DistNetworkError("Failed to recv, got 0 bytes")), Cause.LOST),
        (raised(NoRendezvous("rank 0 did not publish its port")), Cause.LOST),
    ],
)
def test_what_happened_becomes_a_cause(error, cause):
    assert entry.explained(error)[0] == cause


def test_a_rank_that_blames_its_node_names_it_as_the_scheduler_does(monkeypatch):
    monkeypatch.setenv("STX_NODE", "n1")
    assert entry.blamed(Cause.NODE) == {"node": "n1"} and entry.blamed(Cause.OOM) == {}
    monkeypatch.setenv("STX_NODE", "")
    assert entry.blamed(Cause.NODE) == {}, "without a scheduler there is no other node"


def test_an_error_for_people_has_no_traceback_and_another_one_has():
    assert entry.explained(raised(StxError("what", where="where", hint="hint")))[1] == "where\n  what\n  hint"
    assert "Traceback" in entry.explained(raised(ValueError("bad")))[1]


def worker(*arguments, text=None, **env):
    command = [sys.executable, "-m", "stx.worker", *map(str, arguments)]
    return subprocess.run(command, input=text, env=os.environ | env, capture_output=True, text=True, check=False)


def run_worker(folder):
    return worker("run", folder.path, STX_ATTEMPT=str(folder.path))


def command_attempt(workshop, *argv):
    science = {"argv": list(argv), "inputs": {}, "version": "1"}
    return workshop.attempt("command", science=science, where={"inputs": {}}).folder


def test_a_stage_that_returns_is_completed(workshop):
    folder = command_attempt(workshop, "true")
    assert run_worker(folder).returncode == 0
    assert outcome.read(folder, 0).result == Result.COMPLETED


def test_a_stage_that_yields_exits_75(workshop):
    folder = command_attempt(workshop, "sh", "-c", "exit 75")
    assert run_worker(folder).returncode == 75
    assert outcome.read(folder, 0).result == Result.YIELDED


def test_a_failure_is_told_in_the_outcome_and_in_the_log(workshop):
    folder = command_attempt(workshop, "sh", "-c", "exit 3")
    done = run_worker(folder)
    said = outcome.read(folder, 0)
    assert done.returncode not in (0, 75)
    assert (said.result, said.cause) == (Result.FAILED, Cause.USER)
    assert "Traceback" not in said.message
    assert said.message.splitlines()[0] in done.stderr


def test_a_malformed_attempt_record_fails_and_says_so(workshop):
    folder = command_attempt(workshop, "true")
    records.write(folder.attempt, {"tag": "x"})
    assert run_worker(folder).returncode == 1
    assert "attempt.json" in outcome.read(folder, 0).message


def test_wrong_arguments_are_usage(workshop):
    done = worker("ran")
    assert done.returncode == 2
    assert "usage" in done.stderr


def test_check_accepts_networks_that_can_be_built(capsys):
    shapes = [
        {"shape": SHAPE, "teacher_shape": None, "alignment": {"method": "none"}},
        {"shape": SHAPE, "teacher_shape": None, "alignment": HEAD},
        {"shape": SHAPE, "teacher_shape": SHAPE, "alignment": GUIDED},
    ]
    assert entry.check(json.dumps(shapes)) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True}


@pytest.mark.parametrize(
    "record",
    [
        {"shape": SHAPE, "teacher_shape": None, "alignment": HEAD | {"head_block": 3}},
        {"shape": SHAPE, "teacher_shape": SHAPE | {"depth": 1}, "alignment": GUIDED},
        {"shape": SHAPE, "teacher_shape": SHAPE | {"patch": 4}, "alignment": GUIDED},
        {"shape": SHAPE | {"heads": 5}, "teacher_shape": None, "alignment": {"method": "none"}},
        {"shape": SHAPE | {"input_size": 7}, "teacher_shape": None, "alignment": {"method": "none"}},
    ],
)
def test_check_refuses_what_cannot_be_built_or_run(capsys, record):
    assert entry.check(json.dumps([record])) == 2
    refusal = json.loads(capsys.readouterr().out)
    assert refusal["ok"] is False
    assert refusal["what"]


@pytest.mark.slow
def test_check_runs_as_a_program():
    done = worker("check", text=json.dumps([{"shape": SHAPE, "alignment": {"method": "none"}}]))
    assert (done.returncode, json.loads(done.stdout)) == (0, {"ok": True})
