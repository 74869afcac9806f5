"""`stx doctor` on real stores and damaged records; what cannot be had here (NFS, old packages) by its parts."""

import errno
import json
import os

import pytest
from packaging.requirements import Requirement

from jobs.launchers.local import LocalLauncher
from stx.config.cluster import Cluster
from stx.coordinator import inbox, lease
from stx.errors import ConfigError
from stx.paths import Store
from stx.spec import Graph
from stx.verbs import doctor, machine_checks, store_checks
from stx.verbs.check import Check, Level, guarded

MOUNTS = b"""\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:30 / /dev/shm rw - tmpfs tmpfs rw
31 22 0:31 / /home/my\\040data rw - nfs4 server:/x rw
"""


def levels(checks):
    return {check.name: check.level for check in checks}


def only(checks, name):
    (check,) = [check for check in checks if check.name == name]
    return check


@pytest.fixture
def place(tmp_path):
    store = Store(tmp_path / "store")
    store.stages.mkdir(parents=True)
    return store


@pytest.fixture
def umask_kept():
    """A shared store opens the umask of whoever opens it."""
    umask = os.umask(0o022)
    os.umask(umask)
    yield
    os.umask(umask)


def test_a_good_store_is_good_and_stays_as_it_was(place):
    found = list(store_checks.store(place))
    assert not [check for check in found if check.level is Level.FAIL]
    assert levels(found)["hard links"] is levels(found)["durable writes"] is Level.OK
    assert [path.name for path in place.root.iterdir()] == ["stages"]


def test_a_store_that_is_not_there_yet_is_tried_out_above_and_not_made(tmp_path):
    found = list(store_checks.store(Store(tmp_path / "a" / "b")))
    assert "will be made" in only(found, "store").words
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_store(tmp_path):
    (tmp_path / "e.yaml").touch()
    for root in (tmp_path / "e.yaml", tmp_path / "e.yaml" / "below"):
        (check,) = store_checks.store(Store(root))
        assert check.level is Level.FAIL and "is a file, not a folder" in check.words


def test_a_file_system_without_hard_links_fails(place, monkeypatch):
    def link(source, target):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    check = only(store_checks.store(place), "hard links")
    assert check.level is Level.FAIL and "local disk" in check.hint


@pytest.mark.parametrize(
    ("free", "level"), [(1 << 20, Level.FAIL), (1 << 30, Level.WARN), (1 << 40, Level.OK)], ids=["no", "little", "much"]
)
def test_little_space_warns_and_none_fails(place, monkeypatch, free, level):
    usage = type(store_checks.shutil.disk_usage("/"))
    monkeypatch.setattr(store_checks.shutil, "disk_usage", lambda path: usage(2 << 40, 1, free))
    assert only(store_checks.room(place.root), "space").level is level


@pytest.mark.parametrize(
    ("folder", "kind", "level"),
    [("/x/store", "ext4", Level.OK), ("/dev/shm/store", "tmpfs", Level.WARN), ("/home/my data/s", "nfs4", Level.WARN)],
)
def test_the_kind_of_a_file_system_is_that_of_the_nearest_mount(folder, kind, level):
    path = store_checks.Path(folder)
    assert store_checks.kind_of(path, mounts=MOUNTS) == kind
    assert only(store_checks.file_system(path, mounts=MOUNTS), "file system").level is level


def test_damaged_records_fail_by_name_and_the_other_experiments_are_looked_at(place):
    for name in ("bad", "good"):
        place.experiment(name).path.mkdir(parents=True)
        place.experiment(name).graph.write_text(json.dumps(Graph(name, ()).dump()))
    lease_file = place.experiment("bad").lease / "1"
    lease_file.parent.mkdir()
    lease_file.write_text("{")
    held = lease.acquire(place.experiment("good"), lease_s=20)
    found = list(store_checks.contents(place))
    damaged = found[0]
    assert damaged.level is Level.FAIL and str(lease_file) in damaged.words
    assert only(found, "lease").words.startswith("good is driven by process")
    held.release()
    place.record.write_text('{"format": 9}')
    assert only(store_checks.contents(place), "record").level is Level.FAIL


@pytest.mark.parametrize(
    ("mode", "level", "words"),
    [
        (0o755, Level.OK, "private: "),
        (0o2755, Level.OK, "private: "),
        (0o777, Level.FAIL, "anyone may write here"),
        (0o775, Level.WARN, "not the group's: no setgid bit"),
        (0o2775, Level.WARN, "may rename each other's folders"),
        (0o3770, Level.OK, "what is made here is writable by it"),
    ],
)
def test_how_a_store_is_shared_is_said(place, mode, level, words, umask_kept):
    place.stages.chmod(0o2775)
    place.root.chmod(mode)
    check = only(store_checks.shared_with(place), "sharing")
    assert check.level is level
    assert words in check.words


@pytest.mark.parametrize(("mode", "told"), [(0o777, [Level.WARN]), (0o1777, []), (0o755, [])])
def test_a_folder_above_the_store_where_anyone_may_exchange_it_is_a_warning(place, mode, told):
    place.root.parent.chmod(mode)
    found = list(store_checks.store(place))
    assert [check.level for check in found if check.name == "above the store"] == told
    assert only(found, "sharing").level is Level.OK


def test_folders_from_before_a_store_was_shared_are_named(place, umask_kept):
    place.root.chmod(0o3770)
    found = list(store_checks.shared_with(place))
    assert [check.level for check in found] == [Level.OK, Level.WARN]
    assert found[1].words == "made before the store was shared: stages"
    assert "chmod -R g+rwX" in found[1].hint


def test_commands_that_nobody_reads_are_shown(place):
    experiment = place.experiment("a")
    experiment.path.mkdir(parents=True)
    experiment.graph.write_text(json.dumps(Graph("a", ()).dump()))
    inbox.put(experiment, inbox.Command("leave"))
    assert only(store_checks.contents(place), "inbox").level is Level.WARN


@pytest.mark.parametrize(
    ("installed", "level", "words"),
    [
        ({"torch": "2.9", "pillow": "1.0"}, Level.OK, "2 packages at the tested versions"),
        ({"torch": "2.9+cpu", "pillow": "1.0"}, Level.OK, "tested"),
        ({"torch": "2.10", "pillow": "1.0"}, Level.WARN, "torch 2.10 (tested: 2.9)"),
        ({"torch": "2.7", "pillow": "1.0"}, Level.FAIL, "torch 2.7 (>=2.8)"),
        ({"pillow": "1.0"}, Level.FAIL, "missing: torch"),
    ],
    ids=["tested", "a local build", "newer", "too old", "missing"],
)
def test_packages_are_compared_with_what_is_needed_and_what_was_tested(installed, level, words):
    wanted, pins = [Requirement("torch>=2.8"), Requirement("pillow")], {"torch": "2.9", "pillow": "1.0"}
    found = list(machine_checks.packages(wanted, installed=installed, pins=pins))
    assert found[0].level is level and words in found[0].words


def test_this_environment_has_what_its_pins_say():
    pins = machine_checks.pins(machine_checks.PINS)
    found = list(machine_checks.packages(machine_checks.requirements(), installed=machine_checks.versions(), pins=pins))
    assert [check.level for check in found if check.level is Level.FAIL] == []
    assert "torch" in pins


def test_jobs_that_do_not_fit_fail_by_kind_and_a_crowd_of_jobs_is_seen(monkeypatch):
    monkeypatch.setenv("STX_CORES", "8")
    monkeypatch.setenv("STX_GPUS", "0")
    monkeypatch.setattr(machine_checks, "memory_gb", lambda: 64.0)
    large = Cluster.model_validate({"stages": {"default": {"mem_gb": 4}, "train": {"ranks": 4, "cpus_per_rank": 4}}})
    check = only(machine_checks.sizes(large, LocalLauncher(), there=""), "job sizes")
    assert check.level is Level.FAIL and "stages.train: 4 ranks x 4 cores = 16" in check.words
    listed = {"layouts": [{"ranks_per_node": 16}, {"ranks_per_node": 2}]}
    either = Cluster.model_validate({"stages": {"default": {}, "train": listed}})
    check = only(machine_checks.sizes(either, LocalLauncher(), there=""), "job sizes")
    assert check.level is Level.WARN and "layout 1 is never used here: 16 ranks x 1 cores = 16" in check.words
    hungry = Cluster.model_validate({"stages": {"default": {"mem_gb": 20}}})
    check = only(machine_checks.crowd(hungry), "memory")
    assert check.level is Level.WARN and "8 jobs at a time of mem_gb 20" in check.words
    assert only(machine_checks.crowd(large), "memory").level is Level.OK


def test_the_program_of_on_event_is_looked_for():
    missing = Cluster.model_validate({"on_event": ["/no/such"]})
    assert only(machine_checks.event_program(missing), "on_event").level is Level.FAIL
    assert levels(machine_checks.event_program(Cluster.model_validate({"on_event": ["sh"]})))["on_event"] is Level.OK


def test_what_the_system_refuses_is_a_finding(tmp_path):
    def look():
        (tmp_path / "missing").read_text()
        yield

    assert only(guarded("store", look), "store").level is Level.FAIL


def test_lines_say_what_to_do_below(capsys):
    assert (
        doctor.line(Check("space", Level.WARN, "1 GB free", "stx gc"))
        == "warn  space           1 GB free\n      stx gc"
    )


def test_without_the_commands_of_slurm_there_is_one_finding_with_what_to_do(place, monkeypatch):
    monkeypatch.setenv("PATH", str(place.root))
    (found,) = doctor.slurm(Cluster.model_validate({"launcher": "slurm"}), place, probe=True)
    assert found.level is Level.FAIL
    assert found.words == "scontrol: there is no such program here: is Slurm installed, and on PATH?"
    assert "login node" in found.hint


def test_a_probe_is_only_left_out_where_there_is_one(tmp_path):
    with pytest.raises(ConfigError, match="has no effect with launcher: local"):
        doctor.run(cluster=None, store=str(tmp_path), as_json=False, probe=False)


def test_the_home_of_the_coordinator_is_proposed_beside_what_the_file_says():
    here = doctor.home(Cluster(), {"where": "foreground"}, "why")
    there = doctor.home(Cluster(), {"where": "detached"}, "why")
    assert here.words == "{where: foreground}, as this file has it: why"
    assert there.words == "this file says foreground; for this site: coordinator: {where: detached} (why)"
