"""Nodes by name as sinfo has them, recorded from Slurm 22.05: which may be avoided, and which one failed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.launchers.slurm import accounting, nodes, queue
from jobs.launchers.slurm.queue import Row
from jobs.spec import Cause, JobSpec, JobState, Resources

SINFO = """\
c1|cpu|idle|8|6000|(null)|(null)
n1|low*|idle|2|6000|(null)|(null)
n1|high|idle|2|6000|(null)|(null)
n2|low*|down*|2|6000|(null)|(null)
n2|high|down*|2|6000|(null)|(null)
n3|low*|mixed|2|6000|gpu:h100:8(S:0-1)|fast,h100
n4|low*|drained|2|6000|gpu:h100:8(S:0-1)|fast,h100
"""


def job(*, nodes_=1, partition=None, scheduler=None, **size):
    resources = Resources(nodes=nodes_, partition=partition, mem_gb=1, **size)
    return JobSpec("t", ("true",), Path("/a"), Path("/a"), resources, scheduler=scheduler or {})


def many(count, *, state="idle"):
    return nodes.parse("".join(f"m{number}|low*|{state}|2|6000|(null)|(null)\n" for number in range(count)))


def test_every_line_of_sinfo_is_a_node_in_a_partition():
    found = nodes.parse(SINFO)
    assert [(one.name, one.partition, one.default, one.state) for one in found[:2]] == [
        ("c1", "cpu", False, "idle"),
        ("n1", "low", True, "idle"),
    ]
    assert found[5].gpus == 8 and found[5].features == {"fast", "h100"}


def test_a_node_that_is_away_is_avoided_besides_half_of_those_that_could_take_the_job():
    found = nodes.parse(SINFO)
    assert nodes.avoidable(found, job(), ["n2", "n1", "n3", "n4", "c1", "x9"], excluded=()) == ("n2", "n1", "n4")


def test_the_only_node_left_is_never_avoided():
    found = nodes.parse(SINFO)
    assert nodes.avoidable(found, job(partition="cpu"), ["c1"], excluded=()) == ()
    assert nodes.avoidable(found, job(), ["n1"], excluded=["n3"]) == (), "n3 is excluded already"
    h100 = job(scheduler={"constraint": "h100&fast"})
    assert nodes.avoidable(found, h100, ["n3"], excluded=()) == (), "the other one is drained"


@pytest.mark.parametrize("asked", [{"reservation": "r"}, {"constraint": "[a|b]"}, {"constraint": "a|b"}])
def test_where_names_do_not_tell_how_many_nodes_are_left_none_is_avoided(asked):
    assert nodes.avoidable(many(9), job(scheduler=asked), ["m1"], excluded=()) == ()


@given(count=st.integers(0, 40), needs=st.integers(1, 40), bad=st.lists(st.integers(0, 45), unique=True, max_size=45))
def test_as_many_nodes_as_the_job_needs_and_half_of_all_are_always_left(count, needs, bad):
    asked = [f"m{number}" for number in bad]
    avoided = nodes.avoidable(many(count), job(nodes_=needs), asked, excluded=())
    left = count - len(avoided)
    assert not avoided or (left >= needs and left >= count / 2 and len(avoided) <= nodes.MOST)
    assert list(avoided) == [name for name in asked if name in avoided], "the worst first"
    assert len(set(avoided)) == len(avoided)


def test_the_node_that_failed_is_the_only_one_or_one_that_is_down():
    found = nodes.parse(SINFO)
    assert nodes.failed([], ["n1"]) == ("n1",)
    assert nodes.failed(found, ["n1", "n2"]) == ("n2",)
    assert nodes.failed(found, ["n1", "n3"]) == (), "all are up: nobody can tell"


def test_a_list_of_one_name_needs_no_help():
    assert nodes.names_of("n1") == ["n1"] and nodes.names_of("") == [] and nodes.names_of("(null)") == []


@pytest.mark.parametrize(
    ("reason", "status", "cause"),
    [
        ("NonZeroExitCode", 74 << 8, Cause.NODE),
        ("NonZeroExitCode", 73 << 8, Cause.NO_SPACE),
        ("NonZeroExitCode", 1 << 8, None),
        ("JobLaunchFailure", 4021, Cause.NODE),
    ],
)
def test_a_supervisor_that_could_not_begin_says_why_by_its_exit_code(reason, status, cause):
    """squeue's exit_code of Slurm 22.05: 18944 for a job that exited 74, 4021 where its output could not be opened."""
    seen = queue.observe(Row("7", "FAILED", 0, reason, "N/A", "n1", "stx-a-b-1", status), restart=None)
    assert (seen.state, seen.cause) == (JobState.ENDED, cause)


def test_accounting_tells_it_too():
    found = accounting.parse("12|FAILED|n1|74:0\n13|FAILED|n2|1:0\n14|NODE_FAIL|n[1-2]|1:0\n")
    assert {job: (seen.cause, seen.failed) for job, seen in found.items()} == {
        "12": (Cause.NODE, ("n1",)),
        "13": (None, ()),
        "14": (Cause.NODE, ()),
    }
