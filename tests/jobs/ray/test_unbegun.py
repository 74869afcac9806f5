"""Supervisors that cannot begin, on a real Ray: why is told all the same."""

import errno
import os
from pathlib import Path

import pytest

from jobs import outcome
from jobs.contract import Job, prepare, until
from jobs.launchers.ray import RayLauncher
from jobs.spec import Cause, JobState, Observation, Result
from tests.jobs.programs import ROOT
from tests.jobs.ray.conftest import jobs_of, rewritten

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

# Python imports a module of this name at start-up: here in the supervisors of a job whose PYTHONPATH begins with it.
SITE = """
import errno, os, sys
if "jobs.exec" in sys.orig_argv:
    {fault}
"""
UNCLAIMED = """
    def failing(real, place):
        def call(*arguments, **more):
            if str(arguments[place]).endswith("started.json") {where}:
                raise OSError(errno.{error}, os.strerror(errno.{error}))
            return real(*arguments, **more)
        return call
    os.link, os.open = failing(os.link, 1), failing(os.open, 0)
"""


def faulty(launcher: RayLauncher, folder: Path, fault: str, *, ranks: int = 1) -> Job:
    """A submitted job whose supervisors meet this."""
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE.format(fault=fault.strip()))
    spec = prepare(folder, "report", ranks=ranks)
    spec = rewritten(spec, env={**spec.env, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"})
    return Job(launcher, spec, launcher.submit(spec))


def last_of(job: Job) -> Observation:
    """What the launcher says of it in the end."""
    seen: list[Observation] = []
    until(lambda: seen.append(job.observe()) or seen[-1].state is JobState.ENDED, "it has ended")
    until(lambda: not jobs_of(job.launcher), "nothing holds its place")
    return seen[-1]


@pytest.mark.sampled(seconds=9)
@pytest.mark.parametrize(("error", "cause"), [("EIO", Cause.NODE), ("ENOSPC", Cause.NO_SPACE)])
def test_a_supervisor_that_cannot_claim_is_spoken_for_by_its_actor(error, cause, on_ray, folder):
    job = faulty(on_ray, folder, UNCLAIMED.format(error=error, where=""))
    last_of(job)
    said = outcome.read(job.attempt, 0)
    assert said is not None and (said.result, said.cause) == (Result.FAILED, cause), str(said)
    assert "the supervisor of rank 0 could not begin, and ended with code 7" in said.message
    assert os.strerror(getattr(errno, error)) in said.message, "what it printed"
    assert ("node" in said.info) == (cause is Cause.NODE)


@pytest.mark.sampled(seconds=12)
def test_one_that_cannot_claim_on_its_node_ends_the_others_for_it(on_ray, folder):
    fault = UNCLAIMED.format(error="ESTALE", where="and os.environ['STX_RAY_RANK'] == '1'")
    job = faulty(on_ray, folder, fault, ranks=2)
    assert last_of(job).cause is Cause.NODE
    first, said = (outcome.read(job.attempt, rank) for rank in (0, 1))
    assert said is not None and said.cause is Cause.NODE and said.info["node"] in ("n1", "n2"), str(said)
    assert first is not None and first.cause is Cause.NODE and "ended because rank 1 failed" in first.message


@pytest.mark.sampled(seconds=9)
def test_where_its_outcome_cannot_be_written_either_the_launcher_has_the_cause(on_ray, folder):
    fault = UNCLAIMED.format(error="EIO", where="")
    job = faulty(on_ray, folder, fault)
    job.attempt.outcome(0).symlink_to("nowhere")
    seen = last_of(job)
    assert seen.cause is Cause.NODE and "could not begin: the supervisor of rank 0" in seen.detail, seen
    assert job.observe() == seen, "also the next time"


@pytest.mark.sampled(seconds=5)
def test_a_supervisor_that_dies_of_an_import_error_has_its_log_named(on_ray, folder):
    job = faulty(on_ray, folder, 'sys.modules["jobs.supervisor"] = None')
    seen = last_of(job)
    assert str(job.attempt.scheduler_logs) in seen.detail and seen.cause is None, seen
    assert outcome.read(job.attempt, 0) is None
    (log,) = job.attempt.scheduler_logs.glob("*_0_log.out")
    assert "Error: " in log.read_text(), "its traceback"
