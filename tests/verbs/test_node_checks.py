"""The list of bad nodes as `stx doctor` shows it, and a node taken off it."""

from dataclasses import asdict, replace

import pytest

from stx import records
from stx.config.cluster import Cluster
from stx.coordinator import nodes, store_clock
from stx.coordinator.nodes import Evidence
from stx.errors import ConfigError
from stx.paths import Store
from stx.verbs import doctor, node_checks
from stx.verbs.check import Level

HOUR = 3600.0
SLURM = Cluster(launcher="slurm")


@pytest.fixture
def place(tmp_path):
    store = Store(tmp_path / "store")
    store.nodes.mkdir(parents=True)
    return store


def publish(place, node, tag, *, age=HOUR, expire=24 * HOUR):
    now, _ = store_clock.now(place)
    piece = Evidence(
        node=node,
        cluster="slurm:lab@head:6817",
        tag=tag,
        attempt=f"stages/train-3f9c1a72e04b/attempts/{tag[-1:]}",
        experiment="baseline",
        message=f"{node}: 4 GB of memory were asked for, and this node has 1.0 GB available",
        time=now - age,
        expire_s=expire,
    )
    records.publish(place.evidence(node, tag), asdict(piece))
    return piece


def test_a_bad_node_is_shown_with_its_evidence_and_how_to_forget_it(place):
    publish(place, "n1", "t1")
    last = publish(place, "n1", "t2", age=60)
    publish(place, "n2", "t3", age=25 * HOUR)
    (check,) = node_checks.bad_nodes(place, SLURM)
    assert check.level is Level.WARN
    assert check.words.startswith("n1 of slurm:lab@head:6817: 2 attempts failed for it, avoided until ")
    assert f"until {node_checks.moment(last.expires)}; the last {node_checks.moment(last.time)}" in check.words
    assert "attempts/2 of baseline: n1: 4 GB of memory were asked for" in check.words
    assert check.hint.endswith("--forget-node n1")


def test_with_a_threshold_it_is_free_when_the_first_of_the_last_pieces_is_too_old(place):
    pieces = [replace(publish(place, "n1", f"t{age}", age=age * HOUR)) for age in (1, 2, 3)]
    newest = sorted(pieces, key=lambda one: -one.time)
    assert f"avoided until {node_checks.moment(newest[1].expires)}" in node_checks.told(newest, after=2)
    assert "3 attempts failed for it, avoided after 4 of them" in node_checks.told(newest, after=4)


def test_a_forgotten_node_is_no_longer_shown(place, capsys):
    publish(place, "n1", "t1")
    publish(place, "n1", "t2")
    assert doctor.run(cluster=None, store=str(place.root), as_json=False, forget="n1") == 0
    assert "n1 may be used again: 2 attempts that failed for it no longer count" in capsys.readouterr().err
    (check,) = node_checks.bad_nodes(place, SLURM)
    assert check.level is Level.OK
    assert len(nodes.found(place)) == 2, "the evidence stays, so that it is not found again"


def test_a_node_that_nothing_speaks_against_cannot_be_forgotten(place):
    publish(place, "n1", "t1")
    with pytest.raises(ConfigError, match="nothing in this store speaks against it") as caught:
        node_checks.forget(place, "n9")
    assert "n1" in (caught.value.hint or "")


def test_without_a_scheduler_and_evidence_there_is_nothing_to_say(place, tmp_path):
    assert list(node_checks.bad_nodes(place, Cluster())) == []
    assert list(node_checks.bad_nodes(Store(tmp_path / "none"), SLURM)) == []
