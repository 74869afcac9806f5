"""The probe of `stx doctor`: what its script does on a node, done here; and what its answers mean."""

import subprocess
import sys

import pytest

from jobs.launchers.slurm import probe, queue
from stx.config.cluster import Cluster
from stx.verbs import site_probe
from stx.verbs.check import Level

# As n1 of a devcluster wrote it.
SEEN = {
    "host": "vm",
    "node": "n1",
    "python": "3.11.7",
    "executable": "/venv/bin/python",
    "cores": 2,
    "rename": 5.6,
    "link": True,
    "nofollow": True,
    "hello": "stx-doctor-1",
    "clock_ahead_s": 0.004,
    "modules": {"torch": {"version": "2.8.0", "seconds": 8.9}, "submitit": {"version": "1.5.4", "seconds": 0.2}},
    "gpus": [],
    "memory_gb": 23.4,
    "temp_gb": 53.9,
    "submits": {"squeue": "", "sbatch": ""},
    "wrong": {},
}
CLUSTER = Cluster.model_validate(
    {
        "launcher": "slurm",
        "stages": {"default": {"mem_gb": 2}},
        "slurm": {
            "partition": "low",
            "account": "lab",
            "exclude": ["n7", "n9"],
            "setup": ["module load python"],
            "srun": ["--container-image=x y"],
            "python": "/opt/python",
        },
    }
)


def findings(**other):
    found = site_probe.read(SEEN | other, hello="stx-doctor-1", ahead_s=0.0, cluster=CLUSTER)
    return {one.name: one for one in found}


def test_a_node_that_is_well_is_told_of_in_five_lines():
    found = findings()
    assert {one.level for one in found.values()} == {Level.OK}
    assert found["node"].words == "n1 ran a probe: 2 cores and 23 GB of memory seen, no GPU shown to a job without one"
    assert found["node clock"].words == "0.0 s ahead of this machine's, by the file server's"
    assert found["node python"].words == "3.11.7 with torch 2.8.0, imported in 8.9 s"
    assert found["node submits"].words.startswith("yes")


@pytest.mark.parametrize(
    ("other", "name", "level", "words"),
    [
        ({"hello": "?"}, "node store", Level.FAIL, "does not see what was written here"),
        ({"wrong": {"link": "a second link"}}, "node store", Level.FAIL, "a second link"),
        ({"rename": 400.0}, "node store", Level.WARN, "400.0 ms"),
        ({"nofollow": False}, "node store", Level.WARN, "it was followed"),
        ({"clock_ahead_s": -61.0}, "node clock", Level.WARN, "61.0 s behind this machine's"),
        (
            {"modules": {"torch": {"error": "No module named torch"}}},
            "node python",
            Level.FAIL,
            "No module named torch",
        ),
        ({"temp_gb": 0.5}, "node /tmp", Level.WARN, "0.5 GB free"),
        (
            {"submits": {"squeue": "", "sbatch": "Access\ndenied"}},
            "node submits",
            Level.OK,
            "no: sbatch: Access denied",
        ),
    ],
)
def test_what_a_node_lacks_is_told(other, name, level, words):
    assert findings(**other)[name].level is level
    assert words in findings(**other)[name].words


def test_the_probe_asks_for_what_the_default_stage_asks_for_and_for_little():
    text = site_probe.script(CLUSTER, site_probe.Path("/store/.doctor-1"), name="stx-doctor-1")
    lines = text.splitlines()
    for option in ("partition=low", "account=lab", "exclude=n7,n9", "mem=2048M", "cpus-per-task=1", "time=1"):
        assert f"#SBATCH --{option}" in lines
    assert lines[-2:] == [
        "module load python",
        "srun --cpus-per-task=1 '--container-image=x y' /opt/python -P /store/.doctor-1/probe.py /store/.doctor-1",
    ]


def test_a_probe_that_did_not_start_says_why_and_one_that_said_nothing_quotes_its_output(tmp_path):
    waits = queue.Row("7", "PENDING", 0, "Resources", "2026-11-21T15:00:00", "", "x")
    found = site_probe._nothing_seen(waits, tmp_path, waited_s=60.0, late=True)
    assert found.level is Level.WARN
    assert found.words == (
        "it did not start within 60 s: job 7 waits for free nodes (Resources), expected to start 2026-11-21T15:00:00"
    )
    (tmp_path / "job.out").write_text("slurmstepd: error: execve(): /opt/python: No such file\n")
    ended = queue.Row("7", "FAILED", 0, "NonZeroExitCode", "N/A", "n2", "x")
    found = site_probe._nothing_seen(ended, tmp_path, waited_s=60.0, late=False)
    assert found.level is Level.FAIL
    assert found.words.startswith("it ended on n2 without a word; it printed: slurmstepd")


def test_the_script_tries_the_store_out(tmp_path):
    (tmp_path / "hello").write_text("x")
    assert probe.durable(tmp_path) > 0
    assert probe.links(tmp_path) is True and probe.nofollow(tmp_path) is True
    assert abs(probe.clock(tmp_path)) < 5
    assert probe.module("json") == {"version": "2.0.9", "seconds": pytest.approx(0, abs=30)}
    assert "No module named" in probe.module("nothing_of_this_name")["error"]
    assert probe.memory_gb() > 0


def test_a_store_without_claims_is_found_out(tmp_path, monkeypatch):
    (tmp_path / "hello").write_text("x")
    monkeypatch.setattr(probe.os, "link", lambda source, target: probe.shutil.copyfile(source, target))
    with pytest.raises(ValueError, match="says that there is none"):
        probe.links(tmp_path)


def test_the_script_needs_nothing_but_python(tmp_path):
    argv = [sys.executable, "-S", "-I", "-c", f"import runpy; runpy.run_path({probe.__file__!r}, run_name='x')"]
    subprocess.run(argv, check=True, cwd=tmp_path, env={})
