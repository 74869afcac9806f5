"""Kills for want of memory: the kernel's counts as it writes them, and jobs whose cgroup is a folder of ours."""

import os
from pathlib import Path

import pytest

from jobs import memory, outcome
from jobs.memory import OomKiller
from jobs.spec import Cause, Result
from tests.jobs.programs import ROOT, prepare, run, the_outcome

# memory.events of Linux 5.4, 5.10 and 6.1
EVENTS = [
    "low 0\nhigh 0\nmax 23\noom 4\noom_kill {}\n",
    "low 0\nhigh 1043\nmax 0\noom 0\noom_kill {}\n",
    "low 0\nhigh 0\nmax 12\noom 2\noom_kill {}\noom_group_kill 1\n",
]


@pytest.mark.parametrize("events", EVENTS)
def test_kills_are_counted_from_the_beginning_of_the_job(tmp_path: Path, events: str) -> None:
    (tmp_path / "memory.events").write_text(events.format(3))
    killer = OomKiller(tmp_path)
    assert killer.kills() == 0
    (tmp_path / "memory.events").write_text(events.format(5))
    assert killer.kills() == 2


@pytest.mark.parametrize("content", [None, "", "low 0\n", "oom_kill many\n"])
def test_where_nobody_counts_there_are_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "memory.events").write_text(content)
    assert OomKiller(tmp_path).kills() == memory.oom_kills(tmp_path) == 0


@pytest.mark.parametrize(
    ("told", "folder"),
    [
        ("0::/\n", ""),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", "user.slice/user-1000.slice/session-3.scope"),
        ("4:memory:/docker/4bed\n1:cpu:/\n0::/system.slice/a.service\n", "system.slice/a.service"),
        ("4:memory:/docker/4bed\n1:cpu:/\n", ""),
    ],
    ids=["namespace", "session", "hybrid", "v1"],
)
def test_the_own_cgroup_is_the_line_of_version_2(tmp_path: Path, told: str, folder: str) -> None:
    (tmp_path / "cgroup").write_text(told)
    assert memory.own_cgroup(proc=tmp_path / "cgroup", root=Path("/sys/fs/cgroup")) == Path("/sys/fs/cgroup", folder)


SITE = """
import os
from pathlib import Path
from jobs import memory
memory.own_cgroup = lambda: Path(os.environ["CGROUP"])
"""
DIES = """
import os, signal, sys, time
from pathlib import Path
from jobs import runtime
runtime.install()
while runtime.rank() == 0:
    if runtime.stop_requested(): sys.exit(75)
    time.sleep(0.02)
{before}
os.kill(os.getpid(), signal.SIGKILL)
"""
KILLED = "Path(os.environ['CGROUP'], 'memory.events').write_text('oom 2\\noom_kill 2\\n')"


@pytest.mark.parametrize("oom", [True, False])
def test_a_rank_that_the_kernel_killed_for_want_of_memory_failed_so_and_another_sigkill_is_judged(
    tmp_path: Path, oom: bool
) -> None:
    """The program plays the kernel: it counts, then kills."""
    site, cgroup = tmp_path / "site", tmp_path / "cgroup"
    for folder in (site, cgroup):
        folder.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    (cgroup / "memory.events").write_text("oom 1\noom_kill 1\n")
    env = {"PYTHONPATH": os.pathsep.join([str(site), ROOT]), "CGROUP": str(cgroup)}
    attempt = prepare(tmp_path, DIES.format(before=KILLED if oom else "time.sleep(0.3)"), ranks=2, env=env)
    assert run(attempt, env=env) == 1
    if not oom:
        assert outcome.read(attempt, 1) is None, "the coordinator judges: LOST"
        return
    assert [the_outcome(attempt, rank).cause for rank in range(2)] == [Cause.OOM] * 2
    assert the_outcome(attempt, 1).result is Result.FAILED
    assert "oom_kill in memory.events of this job's cgroup rose by 1" in the_outcome(attempt, 1).message
    assert "ended because rank 1 failed" in the_outcome(attempt, 0).message
