"""The rendered slurm.conf says what the site was asked to be."""

from pathlib import Path

import pytest

from slurm.devcluster import config, install
from slurm.devcluster.config import Ports, Site
from slurm.devcluster.folder import Folder

FOLDER = Folder(Path("/tmp/c"))


def rendered(site: Site) -> str:
    nodes = {node: 17001 + i for i, node in enumerate(site.all_nodes)}
    ports = Ports(controller=17000, nodes=nodes, database=17100)
    return config.slurm_conf(site, FOLDER, ports, user="ann", first_job_id=7001)


def lines(site: Site) -> list[str]:
    return rendered(site).splitlines()


def partition(site: Site, name: str) -> dict[str, str]:
    (line,) = (line for line in lines(site) if line.startswith(f"PartitionName={name} "))
    return dict(word.split("=", 1) for word in line.split())


def test_every_node_has_its_own_port_and_the_cpus_it_was_given() -> None:
    found = [line for line in lines(Site(nodes=2, cpus=3, memory_mb=500)) if line.startswith("NodeName=")]
    assert found[:2] == [
        "NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port=17001 CPUs=3 RealMemory=500",
        "NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port=17002 CPUs=3 RealMemory=500",
    ]
    assert [line.split()[0] for line in found[2:]] == ["NodeName=c1"]


def test_low_is_the_default_and_preempted_and_high_and_cpu_are_not() -> None:
    low, high, cpu = (partition(Site(), name) for name in ("low", "high", "cpu"))
    assert (low["Default"], low["PreemptMode"], low["GraceTime"]) == ("YES", "REQUEUE", "10")
    assert int(high["PriorityTier"]) > int(low["PriorityTier"])
    assert high["PreemptMode"] == cpu["PreemptMode"] == "OFF"


def test_coordinators_do_not_share_nodes_with_what_may_be_preempted() -> None:
    assert partition(Site(), "cpu")["Nodes"] == "c1"
    assert "c1" not in partition(Site(), "low")["Nodes"].split(",")


def test_whole_hands_out_whole_nodes() -> None:
    assert partition(Site(), "whole")["OverSubscribe"] == "EXCLUSIVE"


@pytest.mark.parametrize("mode", config.PREEMPT_MODES)
def test_the_preempt_mode_is_that_of_the_cluster_and_of_its_low_partition(mode: str) -> None:
    site = Site(preempt_mode=mode, grace_s=0)
    assert f"PreemptMode={mode}" in lines(site)
    assert (partition(site, "low")["PreemptMode"], partition(site, "low")["GraceTime"]) == (mode, "0")


def test_the_user_signal_can_be_left_out() -> None:
    assert "SlurmctldParameters=preempt_send_user_signal" in lines(Site())
    assert "preempt_send_user_signal" not in rendered(Site(user_signal=False))


def test_everything_is_in_the_folder_and_of_the_user() -> None:
    text = rendered(Site())
    paths = [word.split(",")[0].rsplit("=", 1)[1] for word in text.split() if "=/" in word]
    assert {path for path in paths if not path.startswith("/tmp/c/")} == {"/bin/true"}
    assert "SlurmUser=ann" in text
    assert "SlurmdUser=ann" in text


def test_accounting_is_off_unless_asked_for() -> None:
    assert "AccountingStorageType=accounting_storage/none" in lines(Site())
    with_it = lines(Site(accounting=True))
    assert "AccountingStoragePort=17100" in with_it
    assert not [line for line in with_it if line.startswith("AccountingStorageEnforce")]


def test_a_limit_of_jobs_is_enforced() -> None:
    site = Site(accounting=True, max_submit=3)
    assert "AccountingStorageEnforce=associations,limits,qos" in lines(site)


def test_a_requeued_job_waits_as_long_as_a_credential_lives() -> None:
    assert "AuthInfo=socket=/tmp/c/munge/socket,cred_expire=7" in lines(Site(requeue_delay_s=7))


@pytest.mark.parametrize(
    ("version", "text"),
    [("21.08.5", None), ("22.05.8", "CgroupPlugin=cgroup/v1\n"), ("24.11.5-2", "CgroupPlugin=disabled\n")],
)
def test_slurmd_is_told_to_look_at_no_control_groups_in_words_it_knows(version: str, text: str | None) -> None:
    assert config.cgroup_conf(install.numbers(version)) == text
