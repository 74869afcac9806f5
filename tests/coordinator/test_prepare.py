"""A store is checked before anything is queued."""

import errno
import os

import pytest

from jobs import files
from stx import records
from stx.coordinator import lease
from stx.coordinator.prepare import check_store, prepare, writing
from stx.errors import LeaseHeld, StoreError
from stx.paths import Store


def test_a_fresh_store_gets_its_id_once(tmp_path):
    store = Store(tmp_path / "new" / "store")
    check_store(store)
    first = records.read(store.record)
    check_store(store)
    assert records.read(store.record) == first
    assert len(first["id"]) == 8
    assert first["format"] == 1
    assert sorted(path.name for path in store.root.iterdir()) == ["stages", "store.json"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_store_without_hard_links_is_refused(tmp_path, monkeypatch, number):
    def link(source, target):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(StoreError, match="no hard links"):
        check_store(Store(tmp_path / "store"))
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EACCES, "cannot be written"), (errno.EROFS, "cannot be written"), (errno.ENOSPC, "the disk is full")],
)
def test_a_store_that_cannot_be_written_is_refused_and_says_why(tmp_path, monkeypatch, number, words):
    def write(path, data):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(files, "write", write)
    with pytest.raises(StoreError, match=words):
        check_store(Store(tmp_path / "store"))


def test_a_store_in_the_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        check_store(Store(tmp_path / "store"))


def test_a_store_of_another_format_is_refused(tmp_path):
    records.write(tmp_path / "store.json", {"id": "12345678", "format": 2})
    with pytest.raises(StoreError, match="format 2"):
        check_store(Store(tmp_path))


def test_the_experiment_is_there_before_it_is_driven(tmp_path, sim):
    store, graph = Store(tmp_path), sim.small_graph("a")
    prepare(store, graph, "name: a\n")
    experiment = store.experiment("a")
    assert experiment.file.read_text() == "name: a\n"
    assert records.read(experiment.graph) == graph.dump() | {"nodes": [node.dump() for node in graph.nodes]}


def test_stages_that_an_edit_removed_lose_the_mark_and_nothing_else(tmp_path, sim):
    store, graph = Store(tmp_path), sim.small_graph("a")
    prepare(store, graph, "one")
    for node in graph.nodes:
        stage = store.stage(node.spec.kind, node.key)
        stage.wanted_by.mkdir(parents=True)
        for experiment in "ab":
            records.write(stage.mark(experiment), {"experiment": experiment, "images": []})
    prepare(store, type(graph)("a", graph.nodes[:2]), "two")
    stages = {node.name: store.stage(node.spec.kind, node.key) for node in graph.nodes}
    marked = {name: sorted(path.stem for path in stage.wanted_by.iterdir()) for name, stage in stages.items()}
    assert marked == {"images": ["a", "b"], "train": ["a", "b"], "teacher": ["b"], "samples": ["b"], "scores": ["b"]}


def test_another_graph_is_refused_while_a_coordinator_lives_and_the_same_is_not(tmp_path, sim):
    store, graph = Store(tmp_path), sim.small_graph("a")
    prepare(store, graph, "one")
    lease.acquire(store.experiment("a"), lease_s=20)
    prepare(store, graph, "one")
    with pytest.raises(LeaseHeld):
        prepare(store, sim.small_graph("a", wants=(2,)), "two")


def test_the_flag_that_chose_a_folder_is_the_one_to_change(tmp_path):
    with pytest.raises(StoreError, match="choose another --tensorboard"), writing(tmp_path, flag="--tensorboard"):
        (tmp_path / "no" / "folder").touch()
