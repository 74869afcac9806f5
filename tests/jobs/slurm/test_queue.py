"""What squeue, sacct and sinfo say, recorded from Slurm 22.05, and what it means."""

import pytest

from jobs.launchers.slurm import accounting, commands, queue, site
from jobs.launchers.slurm.commands import SlurmError
from jobs.launchers.slurm.queue import Row
from jobs.spec import Cause, JobState, Resources

SQUEUE = """\
6869038|COMPLETED|0|None|2026-11-21T14:02:50|n1|0|stx-2f6e0c1d-4b1d56c9a1f2-1|
6869039|RUNNING|0|None|2026-11-21T14:02:50|n[1-2]|0|stx-2f6e0c1d-a342dd31b0aa-1|
6869040|PENDING|0|Resources|N/A||0|stx-2f6e0c1d-54f9f7a5ab01-2|
6869041|PENDING|1|BeginTime|2026-11-21T14:05:09||0|stx-2f6e0c1d-b58e5f75c901-1|
6869042|PREEMPTED|0|None|2026-11-21T14:02:51|n3|0|stx-2f6e0c1d-c58e5f75c901-1|
"""


def row(state, *, restarts=0, reason="None"):
    return Row("7", state, restarts, reason, "N/A", "n1", "stx-a-b-1")


def test_every_line_of_squeue_is_a_job():
    rows = queue.parse(SQUEUE)
    assert [found.state for found in rows] == ["COMPLETED", "RUNNING", "PENDING", "PENDING", "PREEMPTED"]
    assert rows[1].nodes == "n[1-2]" and rows[3].restarts == 1
    assert rows[4].name == "stx-2f6e0c1d-c58e5f75c901-1"


@pytest.mark.parametrize("text", ["slurm_load_jobs error: x", "1|RUNNING", "x|RUNNING|0|None|N/A|n1|name|"])
def test_what_is_no_line_of_squeue_is_an_error_and_never_an_empty_queue(text):
    with pytest.raises(ValueError, match="no line of a job"):
        queue.parse(text)


@pytest.mark.parametrize(
    ("state", "seen", "cause"),
    [
        ("PENDING", JobState.PENDING, None),
        ("CONFIGURING", JobState.RUNNING, None),
        ("RUNNING", JobState.RUNNING, None),
        ("COMPLETING", JobState.RUNNING, None),
        ("COMPLETED", JobState.ENDED, None),
        ("FAILED", JobState.ENDED, None),
        ("CANCELLED", JobState.ENDED, None),
        ("TIMEOUT", JobState.ENDED, Cause.TIMEOUT),
        ("PREEMPTED", JobState.ENDED, Cause.PREEMPT),
        ("NODE_FAIL", JobState.ENDED, Cause.NODE),
        ("OUT_OF_MEMORY", JobState.ENDED, Cause.OOM),
        ("A_STATE_OF_NEXT_YEAR", JobState.UNKNOWN, None),
    ],
)
def test_a_state_of_slurms_is_one_of_ours_with_its_cause(state, seen, cause):
    found = queue.observe(row(state), restart=0)
    assert (found.state, found.cause) == (seen, cause)


def test_a_job_that_squeue_has_forgotten_has_ended():
    assert queue.observe(None, restart=0).state is JobState.ENDED


def test_a_job_that_the_site_started_again_is_over_for_the_attempt_that_it_began():
    found = queue.observe(row("PENDING", restarts=1, reason="BeginTime"), restart=0)
    assert (found.state, found.cause) == (JobState.ENDED, Cause.PREEMPT)
    assert queue.observe(row("RUNNING", restarts=1), restart=1).state is JobState.RUNNING
    assert queue.observe(row("PENDING", restarts=1), restart=None).state is JobState.PENDING, "it began nothing yet"


def test_why_a_job_waits_is_told_in_words_with_slurms_own():
    assert queue.parse(SQUEUE)[2].words == "job 6869040 waits for free nodes (Resources)"
    assert queue.parse(SQUEUE)[3].words == "job 6869041 may not start yet: Slurm delays it (BeginTime)"
    assert [one.expected for one in queue.parse(SQUEUE)] == ["", "", "", "2026-11-21T14:05:09", ""]
    assert row("PENDING", reason="None").words == "", "Slurm has not looked at it yet"
    assert row("PENDING", reason="QOSMaxWallDurationPerJobLimit").words.startswith("job 7 waits: QOSMax Wall Duration")


def test_accounting_is_believed_about_ended_jobs_only():
    found = accounting.parse(
        "12|CANCELLED by 0|n1|0:15\n13|RUNNING|n2|0:0\n14|NODE_FAIL|n3|1:0\n14.batch|FAILED|n3|1:0\n15|||\n"
    )
    assert {job: (seen.state, seen.cause) for job, seen in found.items()} == {
        "12": (JobState.ENDED, None),
        "14": (JobState.ENDED, Cause.NODE),
    }


def test_a_site_without_accounting_is_asked_again_only_after_a_while(monkeypatch):
    asked, now = [], [0.0]

    def no_accounting(command, **_):
        asked.append(command)
        raise SlurmError("sacct", "Slurm accounting storage is disabled")

    monkeypatch.setattr(commands, "run", no_accounting)
    past = accounting.Past(clock=lambda: now[0])
    assert past.ask(["1"]) == {} and past.ask(["1", "2"]) == {}
    assert len(asked) == 1
    now[0] = accounting.ASK_AGAIN_S
    past.ask(["1"])
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("said", "later"),
    [
        ("error: Batch job submission failed: Socket timed out on send/recv operation", True),
        ("error: QOSMaxSubmitJobPerUserLimit; Batch job submission failed: Job violates accounting/QOS policy", True),
        ("error: Batch job submission failed: Unable to contact slurm controller (connect failure)", True),
        ("error: invalid partition specified: nosuch", False),
        ("error: Batch job submission failed: Requested node configuration is not available", False),
    ],
)
def test_a_refusal_that_says_nothing_against_the_request_is_for_later(said, later):
    assert SlurmError("sbatch", said).later is later


def test_the_environment_of_a_surrounding_job_is_left_behind():
    inside = {"SLURM_JOB_ID": "1", "SLURM_CONF": "/c", "SBATCH_PARTITION": "x", "PATH": "/bin", "PMI_RANK": "0"}
    assert commands.scrubbed(inside) == {"SLURM_CONF": "/c", "PATH": "/bin"}
    assert commands.left_out(inside) == ["PMI_RANK", "SBATCH_PARTITION", "SLURM_JOB_ID"]


SINFO = """\
low*|4|2|6000|(null)|infinite
gpu|2|64|515000|gpu:h100:8(S:0-1)|2-00:00:00
gpu|1|128+|1030000+|gpu:h100:4|2-00:00:00
"""


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"cpus_per_rank": 2}, None),
        ({"cpus_per_rank": 3}, "a node of this job takes 3 CPUs, but the largest of low has 2"),
        ({"nodes": 5}, "5 nodes of this size, but low has 4 of them"),
        ({"mem_gb": 6.0}, "6 GB of memory, but the largest of low has 5.85938"),
        ({"gpus_per_rank": 1}, "takes 1 GPUs, but the largest of low has 0"),
        ({"partition": "gpu", "ranks_per_node": 8, "gpus_per_rank": 1, "nodes": 2}, None),
        ({"partition": "gpu", "ranks_per_node": 8, "gpus_per_rank": 1, "nodes": 3}, "but gpu has 2 of them"),
        ({"partition": "gpu", "time_s": 200000.0}, "time = 200000 s, but gpu allows 172800 s"),
        ({"partition": "fast"}, "there is no partition fast on this cluster; it has gpu, low"),
    ],
)
def test_a_job_that_no_node_could_take_is_refused_with_what_there_is(asked, words):
    found = site.refusal(site.parse_nodes(SINFO), Resources(**{"mem_gb": 1.0, **asked}))
    assert (found is None) if words is None else (words in str(found))


def test_a_cluster_is_known_by_its_name_and_its_controller():
    text = "ClusterName             = stxdev\nSlurmctldHost[0]        = node7(127.0.0.1)\nSlurmctldPort  = 6817\n"
    assert site.parse(text).identity == "slurm:stxdev@node7:6817"
