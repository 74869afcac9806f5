"""What `stx doctor` tells of a Slurm site, by recorded answers of a real one (22.05) and variations of them."""

from pathlib import Path

import pytest

from jobs.launchers.slurm import partition, site
from stx.config.cluster import Cluster
from stx.verbs import site_checks
from stx.verbs.check import Level
from stx.verbs.site_checks import Here

RECORDED = Path(__file__).parents[1] / "jobs" / "slurm"
NODES = """\
low*|4|2|6000|(null)|infinite
whole|4|2|6000|(null)|infinite
high|4|2|6000|(null)|infinite
cpu|1|8|6000|(null)|infinite
"""


def here(*, partitions=(), **values):
    """The recorded site, with other values of its configuration, and with other words in its partitions."""
    text = (RECORDED / "partitions.txt").read_text()
    for old, new in partitions:
        assert old in text
        text = text.replace(old, new)
    there = site.parse((RECORDED / "config.txt").read_text())
    there = site.Site({**there.values, **values})
    return Here(there, partition.parse(text, there), site.parse_nodes(NODES))


def cluster(**options):
    stages = options.pop("stages", {"default": {"mem_gb": 2, "time": "10m"}})
    found = {"launcher": "slurm", "poll_s": 30, "stop_lead_s": 8, "stages": stages, "slurm": {"partition": "low"}}
    return Cluster.model_validate(found | options)


def only(found, name):
    (check,) = [check for check in found if check.name == name]
    return check


def test_every_finding_about_the_recorded_site_is_good():
    found = list(site_checks.findings(here(), cluster()))
    assert [one for one in found if one.level is not Level.OK] == []
    assert only(found, "slurm").words == "22.05.8 (stxdev@vm:15516), 4 partitions"
    assert only(found, "partition").words == "low: 4 nodes, no time limit"
    assert "signals reach every process of a step" in only(found, "processes").words


def test_the_partitions_of_a_site_are_read():
    found = {one.name: one for one in here().partitions}
    assert [name for name, one in found.items() if one.preempted] == ["low", "whole"]
    assert [name for name, one in found.items() if one.whole] == ["whole"]
    assert (found["low"].grace_s, found["low"].time_s, found["low"].default, found["cpu"].nodes) == (
        10.0,
        None,
        True,
        1,
    )
    limited = here(partitions=[("MaxTime=UNLIMITED", "MaxTime=2-00:00:00")])
    assert limited.partitions[0].time_s == 172800.0
    assert {one.preempt for one in here(PreemptType="preempt/none").partitions} == {"OFF"}
    assert all(one.whole for one in here(SelectType="select/linear").partitions)


@pytest.mark.parametrize(
    ("options", "site_values", "partitions", "level", "words"),
    [
        ({}, {}, (), Level.OK, "USR2 at once, TERM after GraceTime = 10 s, KILL 5 s later (KillWait)"),
        ({}, {}, (), Level.OK, "The job saves and yields"),
        ({"stop_lead_s": 90}, {}, (), Level.WARN, "the next attempt goes on from the last checkpoint"),
        ({}, {"SlurmctldParameters": "(null)"}, (), Level.OK, "TERM at once (no preempt_send_user_signal"),
        ({}, {}, [("GraceTime=10", "GraceTime=0")], Level.WARN, "GraceTime 0: TERM at once, KILL 5 s later"),
        ({}, {"KillWait": "30 sec"}, [("GraceTime=10", "GraceTime=0")], Level.OK, "KILL 30 s later"),
        ({}, {}, [("PreemptMode=REQUEUE", "PreemptMode=CANCEL")], Level.OK, "CANCEL: USR2 at once"),
        ({}, {}, [("PreemptMode=REQUEUE", "PreemptMode=SUSPEND")], Level.WARN, "they stand still"),
        ({}, {"PreemptType": "preempt/qos"}, (), Level.WARN, "stands in the QOS"),
        ({}, {"PreemptType": "preempt/none"}, (), Level.OK, "never"),
    ],
)
def test_what_a_preempted_job_meets_is_told_in_words(options, site_values, partitions, level, words):
    found = only(site_checks.findings(here(partitions=partitions, **site_values), cluster(**options)), "preempt low")
    assert found.level is level
    assert words in found.words


def test_every_partition_that_a_kind_goes_to_is_looked_at():
    stages = {"default": {}, "train": {"slurm": {"partition": "high"}}, "latents": {"slurm": {"partition": "none"}}}
    found = list(site_checks.findings(here(), cluster(stages=stages)))
    assert {one.name for one in found if one.name.startswith("preempt")} == {"preempt low", "preempt high"}
    missing = [one for one in found if one.name == "partition" and one.level is Level.FAIL]
    assert [one.words for one in missing] == ["there is no partition none for stages.latents"]
    assert "low, whole, high, cpu" in missing[0].hint


def test_a_job_that_no_node_could_take_fails_and_a_layout_is_passed_over():
    found = list(site_checks.sizes(here(), cluster(stages={"default": {"mem_gb": 2, "cpus_per_rank": 3}})))
    assert [one.level for one in found] == [Level.FAIL]
    assert "a node of this job takes 3 CPUs, but the largest of low has 2" in found[0].words
    layouts = [{"nodes": 9}, {"nodes": 2}]
    found = list(site_checks.sizes(here(), cluster(stages={"default": {}, "train": {"layouts": layouts}})))
    assert [one.level for one in found] == [Level.WARN]
    assert "layout 1 is never used here: 9 nodes" in found[0].words


@pytest.mark.parametrize(
    ("values", "level", "words"),
    [
        ({}, Level.OK, "no accounting, and none is needed"),
        ({"MinJobAge": "60 sec"}, Level.WARN, "it counts as LOST"),
        ({"MinJobAge": "2 sec", "AccountingStorageType": "accounting_storage/slurmdbd"}, Level.OK, "sacct knows"),
    ],
)
def test_a_job_must_be_seen_to_end_before_the_controller_forgets_it(values, level, words):
    found = site_checks.memory_of_jobs(here(**values), cluster())
    assert found.level is level
    assert words in found.words


def test_what_kills_reach_depends_on_how_processes_are_tracked():
    assert (
        "held to their cores"
        in site_checks.processes(here(ProctrackType="proctrack/cgroup", TaskPlugin="task/cgroup")).words
    )
    assert site_checks.processes(here(ProctrackType="proctrack/pgid")).level is Level.WARN


def test_more_jobs_than_half_of_what_the_controller_takes_is_a_warning():
    found = site_checks.limits(here(MaxJobCount="1500"), cluster())
    assert (found.level, found.hint) == (Level.WARN, "limits: {running: 375} leaves room for others")


@pytest.mark.parametrize(
    ("submits", "crontab", "proposed"),
    [
        (True, True, [{"where": "job", "partition": "cpu"}, {"where": "chain"}, {"where": "detached"}]),
        (False, True, [{"where": "cron"}, {"where": "detached"}]),
        (False, False, [{"where": "detached"}]),
        (None, True, [{"where": "detached"}]),
    ],
)
def test_the_coordinator_is_proposed_where_the_site_lets_it_live(submits, crontab, proposed):
    found = list(site_checks.homes(here(), submits=submits, crontab=crontab))
    assert [one for one, _ in found] == proposed
    assert all(why for _, why in found)


def test_a_site_of_whole_nodes_has_no_place_for_a_resident_coordinator():
    found = site_checks.homes(here(SelectType="select/linear"), submits=True, crontab=False)
    assert [one["where"] for one, _ in found] == ["chain", "detached"]


def test_what_is_proposed_is_what_a_cluster_file_may_say():
    proposed, _ = site_checks.proposal(here(), submits=True, crontab=True)
    assert cluster(coordinator=proposed).coordinator.where == proposed["where"]
