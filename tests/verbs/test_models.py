"""Networks are built on the meta device before anything is queued, and only once for the same sources."""

import json
import os

import pytest

from stx.coordinator import snapshot
from stx.coordinator.prepare import check_store
from stx.errors import PlanError
from stx.verbs import models, plan

MICRO = "tests/integration/micro.yaml"


@pytest.fixture
def planned(tmp_path, request):
    made = plan.prepare(request.config.rootpath / MICRO, sets=(), cluster=None, store=str(tmp_path / "store"))
    check_store(made.store)
    return made


def counted(monkeypatch):
    calls, run = [], models.subprocess.run
    monkeypatch.setattr(models.subprocess, "run", lambda *a, **k: calls.append(json.loads(k["input"])) or run(*a, **k))
    return calls


def test_what_was_accepted_once_is_not_built_again(planned, monkeypatch):
    code = snapshot.snapshot(planned.store)
    calls = counted(monkeypatch)
    models.check(planned.graph, planned.lines, code=code)
    models.check(planned.graph, planned.lines, code=code)
    assert [len(shapes) for shapes in calls] == [2]
    assert snapshot.snapshot(planned.store) == code, "what is remembered must not spoil the copy"


def test_other_packages_build_again(planned, monkeypatch):
    code = snapshot.snapshot(planned.store)
    calls = counted(monkeypatch)
    models.check(planned.graph, planned.lines, code=code)
    monkeypatch.setattr(models.metadata, "version", lambda name: "0.0")
    models.check(planned.graph, planned.lines, code=code)
    assert len(calls) == 2


def test_what_was_refused_is_not_remembered(planned, monkeypatch):
    code = snapshot.snapshot(planned.store)
    impossible = {"shape": {}, "teacher_shape": None, "alignment": {"method": "none"}, "cached": False}
    monkeypatch.setattr(models.plan, "shapes", lambda graph: [impossible])
    for _ in range(2):
        with pytest.raises(PlanError):
            models.check(planned.graph, planned.lines, code=code)
    assert not list(code.path.glob("accepted-*"))


def test_a_copy_that_cannot_be_written_costs_time_only(planned, monkeypatch):
    code = snapshot.snapshot(planned.store)

    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr(models.os, "open", refuse)
    models._remember(code.path / "accepted-0")
    assert not os.path.lexists(code.path / "accepted-0")


def test_a_refused_model_is_told_in_the_workers_words_not_as_json():
    said = json.dumps({"ok": False, "where": "model S", "what": "there is no block 9", "hint": "1..6"})
    error = models.refused(2, out=said + "\n", err="a warning\n")
    assert str(error) == "model S\n  there is no block 9\n  1..6"
    assert error.exit_code == 2


def test_a_check_that_died_shows_the_end_of_what_it_printed():
    error = models.refused(-9, out="", err="line 1\nImportError: no torch\n")
    assert "exit code -9" in error.what and "ImportError: no torch" in str(error)
