"""`stx ray` and `stx dashboard` where there is nothing to bring up: what they refuse, and what they say."""

import json
import os
from pathlib import Path

import pytest

from jobs import processes
from jobs.launchers.ray.nodes import Node
from jobs.launchers.ray.up import folder as folders
from jobs.launchers.ray.up import record
from jobs.launchers.ray.up.folder import Asked, Over, Report, Step
from jobs.launchers.ray.up.record import Record
from jobs.spec import Cause, Resources
from stx.config.cluster import load_cluster
from stx.errors import BackendError, ConfigError
from stx.paths import Store
from stx.verbs import dashboard, expected, ray
from stx.verbs.launching import launcher_of
from stx.verbs.own_ray import OwnRay, Standing


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A cluster file with these options of its `ray` section."""
    monkeypatch.setenv("STX_CORES", "4")
    monkeypatch.setenv("STX_GPUS", "0")

    def write(options: str = "{}", *, launcher: str = "ray") -> str:
        path = tmp_path / "mine.yaml"
        section = f"ray: {options}\n" if launcher == "ray" else ""
        path.write_text(f"launcher: {launcher}\nstore: {tmp_path}/store\n{section}")
        return str(path)

    return write


def test_a_launcher_without_ray_clusters_is_refused(write):
    with pytest.raises(ConfigError, match="its launcher is local: it has no Ray cluster"):
        ray.status(cluster=write(launcher="local"), store=None, as_json=False)


def test_a_cluster_that_somebody_else_keeps_is_not_brought_up(write):
    with pytest.raises(ConfigError, match="somebody else keeps") as caught:
        ray.up(cluster=write("{address: '10.0.0.1:6379'}"), store=None, nodes=None, time_limit=None, wait=True)
    assert caught.value.where.endswith('mine.yaml:3: ray.address = "10.0.0.1:6379"')


def test_what_is_typed_is_checked_as_the_file_is(write):
    with pytest.raises(ConfigError, match="has no effect with where: local") as caught:
        ray.up(cluster=write(), store=None, nodes=None, time_limit="4h", wait=True)
    assert caught.value.where == "--time 4h"
    with pytest.raises(ConfigError, match="is not a time"):
        ray.up(cluster=write("{where: slurm}"), store=None, nodes=None, time_limit="soon", wait=True)
    with pytest.raises(ConfigError) as caught:
        ray.up(cluster=write(), store=None, nodes=0, time_limit=None, wait=True)
    assert caught.value.where == "--nodes 0"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("{address: 'h:1', nodes: 2}", "ray.nodes = 2\n  has no effect beside address"),
        ("{token: /t}", 'ray.token = "/t"\n  has no effect without address'),
        ("{allocations: 2}", "ray.allocations = 2\n  has no effect with where: local"),
        ("{address: auto}", "is no address"),
        ("{temp_dir: tmp}", "is relative"),
        ("{nodes: 2, gpus_per_node: 4}", "ray.gpus_per_node = 4\n  2 nodes on one machine would take the same GPUs"),
    ],
)
def test_an_option_that_does_nothing_is_refused_by_name(write, options, said):
    with pytest.raises(ConfigError) as caught:
        load_cluster(write(options))
    assert said in str(caught.value)


def test_the_slurm_section_is_for_the_allocation_alone(write, tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("launcher: ray\nray: {where: slurm}\nslurm: {partition: low}\n")
    assert load_cluster(path).slurm.partition == "low"
    path.write_text("launcher: ray\nslurm: {partition: low}\n")
    with pytest.raises(ConfigError, match="has no effect with launcher: ray"):
        load_cluster(path)
    path.write_text("launcher: ray\nray: {where: slurm}\nstages: {train: {slurm: {partition: low}}}\n")
    with pytest.raises(ConfigError, match="has no effect with launcher: ray"):
        load_cluster(path)


def test_where_none_was_ever_there_it_says_so(write, capsys):
    ray.status(cluster=write(), store=None, as_json=True)
    assert json.loads(capsys.readouterr().out)["state"] == "NONE"
    ray.down(cluster=write(), store=None)
    assert "no Ray cluster of mine is up" in capsys.readouterr().err
    with pytest.raises(BackendError, match="no Ray cluster of mine is up"):
        dashboard.run(cluster=write(), store=None, as_json=False, browser=False)


def test_how_the_last_one_ended_is_told(write, tmp_path, capsys):
    clusters = Store(tmp_path / "store").ray_clusters(f"mine@{processes.machine()}")
    clusters.parent.mkdir(parents=True)
    folder = folders.claim(clusters, Asked(name="mine", nodes=1, record=str(tmp_path / "r"), token="/t"), number=1)
    folders.publish(folder.over, Over(words="node n1: port 7 is taken", cause=Cause.SETUP))
    folders.save(folder.node(0), Report(number=0, name="n1", step=Step.FAILED, process="1:1:b:m"))
    ray.status(cluster=write(), store=None, as_json=False)
    assert capsys.readouterr().out.startswith("mine: OVER: node n1: port 7 is taken\n")


def test_a_launcher_of_our_own_cluster_finds_the_one_that_is_up(write, tmp_path):
    cluster, store = load_cluster(write()), Store(tmp_path / "store")
    launcher = launcher_of(cluster, store)
    assert launcher.identity() == f"ray:{store.root}/ray/mine@{processes.machine()}.json", (
        "another machine has another one"
    )
    with pytest.raises(RuntimeError, match="no Ray cluster of ours is up") as caught:
        launcher.described()
    assert caught.value.later
    assert launcher.find("stx-0-a-1", tmp_path / "001") is None


def test_jobs_are_planned_by_what_the_nodes_will_have(write, monkeypatch):
    cluster = load_cluster(write("{nodes: 2, mem_gb: 8}"))
    first, second = expected.nodes_of(cluster)
    assert (first.cpus, second.cpus) == (2, 2) and first.memory_gb < second.memory_gb < 8
    launcher = launcher_of(cluster, Store(Path("/nowhere")))
    assert launcher.refusal(Resources(nodes=2, mem_gb=1)) is None
    assert "takes 3 CPUs" in launcher.refusal(Resources(cpus_per_rank=3))
    assert isinstance(first, Node)


def test_jobs_are_measured_by_the_cluster_that_is_up_where_it_has_another_number_of_nodes(write, tmp_path):
    cluster, store = load_cluster(write("{nodes: 1, cpus_per_node: 2, mem_gb: 4}")), Store(tmp_path / "store")
    launcher, name = launcher_of(cluster, store), expected.called(cluster)
    assert "2 nodes of this size are wanted" in launcher.refusal(Resources(nodes=2, mem_gb=1))
    store.ray_clusters(name).mkdir(parents=True)
    asked = Asked(name="mine", nodes=2, record=str(store.ray(name)), token="/t", cpus=2, mem_gb=4)
    folders.claim(store.ray_clusters(name), asked, number=1)
    record.write(store.ray(name), Record(address="a:1", token="/t", dashboard="d", tunnel="", nodes=2, keeper="1"))
    assert launcher.refusal(Resources(nodes=2, mem_gb=1)) is None


def test_several_nodes_on_one_machine_have_no_gpus(write, monkeypatch):
    monkeypatch.setenv("STX_GPUS", "4")
    assert [node.gpus for node in expected.nodes_of(load_cluster(write("{nodes: 2}")))] == [0, 0]


def test_a_cluster_of_ours_needs_a_coordinator_that_stays(write):
    path = Path(write())
    path.write_text(path.read_text() + "coordinator: {where: cron}\n")
    with pytest.raises(ConfigError, match="between its passes no Ray cluster of ours is kept up"):
        load_cluster(str(path))


def test_a_cluster_that_ended_without_a_word_before_it_was_up_names_its_folder(write, tmp_path):
    cluster, store = load_cluster(write()), Store(tmp_path / "store")
    clusters = store.ray_clusters(expected.called(cluster))
    clusters.parent.mkdir(parents=True)
    folder = folders.claim(clusters, Asked(name="mine", nodes=1, record=str(tmp_path / "r"), token="/t"), number=1)
    os.utime(folder.asked, (1, 1))
    look = OwnRay(cluster, store).look()
    assert look.standing is Standing.OVER and look.never_up and str(folder.path) in look.words
    folders.save(folder.node(0), Report(number=0, name="n1", step=Step.UP, process="1:1:b:m"))
    assert not OwnRay(cluster, store).look().never_up


def test_one_that_is_being_asked_for_is_not_asked_for_again(write, tmp_path):
    cluster, store = load_cluster(write()), Store(tmp_path / "store")
    (store.ray_clusters(expected.called(cluster)) / "001").mkdir(parents=True)
    assert OwnRay(cluster, store).look().standing is Standing.STARTS
    os.utime(store.ray_clusters(expected.called(cluster)) / "001", (1, 1))
    assert OwnRay(cluster, store).look().standing is Standing.NONE, "whoever wanted it was killed"


def test_an_address_record_is_read_as_it_was_written(tmp_path):
    written = Record(address="a:1", token="/t", dashboard="d", tunnel="", nodes=2, keeper="slurm:7", via=("srun", "x"))
    record.write(tmp_path / "r.json", written)
    assert record.read(tmp_path / "r.json") == written
    assert record.read(tmp_path / "none.json") is None
