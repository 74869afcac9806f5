"""`stx plan --requests`: the text that an attempt will get as its request.txt, before there is one."""

import json

import pytest

from stx import records
from stx.coordinator import prepare
from stx.errors import ConfigError
from stx.verbs import launching, plan, requests

FILE = """\
name: nap
stages:
  first: {kind: command, argv: [sleep, "5"]}
  many:
    kind: command
    argv: [sleep, "6"]
    inputs: {first: first}
    sweep: {version: ["1", "2", "3"]}
"""
CLUSTER = """\
launcher: slurm
stop_lead_s: 8
stages: {default: {mem_gb: 2, time: 10m}}
slurm: {partition: low, exclude: [n9]}
"""


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """The plan of three naps after one, on a laptop: there is no Slurm on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    (tmp_path / "e.yaml").write_text(FILE)
    (tmp_path / "c.yaml").write_text(CLUSTER)
    options = {"cluster": str(tmp_path / "c.yaml"), "store": str(tmp_path / "store")}
    return lambda: plan.prepare(tmp_path / "e.yaml", sets=(), **options)


def test_one_request_per_stage_is_shown_and_all_of_them_are_counted(planned, tmp_path):
    found = list(requests.requests(planned(), every=False))
    assert [(one.name, one.attempt, one.alike) for one in found] == [("first", 1, 0), ("many:version=1", 1, 2)]
    text = requests.show(found, launcher="slurm")
    assert text.startswith("4 requests to the launcher slurm:\n\n--- first: attempt 1\n#!/bin/bash\n")
    assert "--- many:version=1: attempt 1, and 2 more like it\n" in text
    for line in ("--partition=low", "--exclude=n9", "--mem=2048M", "--time=0-00:10:00", "--signal=USR2@8"):
        assert f"#SBATCH {line}\n" in text
    assert not (tmp_path / "store").exists(), "a plan writes nothing"


def test_all_points_are_shown_when_asked_for(planned):
    found = list(requests.requests(planned(), every=True))
    assert [one.name for one in found] == ["first", "many:version=1", "many:version=2", "many:version=3"]
    assert {one.alike for one in found} == {0}
    assert len({one.text for one in found}) == 4


def test_the_number_is_that_of_the_next_attempt_and_the_store_is_named(planned):
    one = planned()
    prepare.check_store(one.store)
    node = next(node for node in one.graph.nodes if node.name == "first")
    attempt = one.store.stage("command", node.key).attempt(1)
    attempt.path.mkdir(parents=True)
    claim = dict.fromkeys(("experiment", "host", "code", "launcher", "tag"), "x") | {"number": 1}
    records.write(attempt.intent, claim | {"job": {"resources": {}}})
    records.write(attempt.verdict, {"result": "FAILED", "cause": "LOST", "message": ""})
    first = next(requests.requests(planned(), every=False))
    store_id = records.read(one.store.record)["id"]
    assert first.attempt == 2
    assert f"#SBATCH --job-name=stx-{store_id}-{node.key[:12]}-2\n" in first.text


def test_what_is_finished_or_held_is_not_asked_for(planned, tmp_path):
    one = planned()
    lines = [plan.PlanLine(line.node, plan.Verb.CACHED, "") for line in one.lines]
    nothing = plan.Planned(**{**vars(one), "lines": lines})
    assert list(requests.requests(nothing, every=False)) == []
    assert requests.show([], launcher="slurm") == "no job would be submitted"


def test_without_submitit_it_says_what_to_install(planned, monkeypatch):
    monkeypatch.setattr(launching, "NEEDED", {"slurm": "nothing_of_this_name"})
    with pytest.raises(ConfigError, match="nothing_of_this_name is not installed here"):
        list(requests.requests(planned(), every=False))


def test_json_has_every_request_in_full(planned, tmp_path, capsys):
    planned()
    common = {"sets": (), "cluster": str(tmp_path / "c.yaml"), "store": str(tmp_path / "store"), "every": False}
    plan.run(tmp_path / "e.yaml", **common, as_json=True, requests=True)
    told = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in told["requests"]] == ["first", *(f"many:version={n}" for n in (1, 2, 3))]
    assert told["requests"][0]["request"].startswith("#!/bin/bash\n")
    plan.run(tmp_path / "e.yaml", **common, as_json=True)
    assert "requests" not in json.loads(capsys.readouterr().out)
