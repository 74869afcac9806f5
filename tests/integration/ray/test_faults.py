"""Whatever is killed while an experiment trains on a real Ray: the stage goes on from its last save, nothing is trained
twice, and the weights are those of a local run.
"""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.files import AttemptDir
from stx.paths import StageDir
from stx.report import history
from tests import ray_cluster
from tests.integration.conftest import Stx
from tests.integration.ray.conftest import OnRay, of_home, on_ray_of
from tests.integration.slurm.test_training import LONG, check_that_every_image_was_trained_once
from tests.jobs.ray.conftest import actor_of, supervisor_of
from tests.slurm_cluster import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.sampled(seconds=75)]

OURS = """\
launcher: ray
ray: {cpus_per_node: 1, gpus_per_node: 0, mem_gb: 3}
coordinator: {where: foreground}
poll_s: 0.2
lease_s: 20
stop_lead_s: 8
backoff_s: [0, 2]
checkpoint: {every_s: 2, max_stall: 1}
stages: {default: {mem_gb: 0.2, time: 20m}}
"""
EXPERIMENT = LONG.replace("STEPS", "2500")


@pytest.fixture(scope="module")
def untouched(new_stx: Callable[[str], Stx], micro: Stx) -> dict[str, str]:
    """Digests of the experiment on this machine, where nothing happens to it."""
    local = new_stx("untouched")
    for kind in ("images", "autoencoder", "latents"):
        for stage in micro.store.glob(f"stages/{kind}-*"):
            shutil.copytree(stage, local.store / "stages" / stage.name, ignore=shutil.ignore_patterns("wanted_by"))
    experiment = local.folder / "two.yaml"
    experiment.write_text(EXPERIMENT)
    local.run("submit", str(experiment))
    return local.digests()


@pytest.fixture
def alone(with_latents: Stx) -> Iterator[OnRay]:
    """stx on a Ray of its own, which this test may break: jobs run on the node that is not the head."""
    with ray_cluster.cluster() as made:
        made.start("n1", cpus=0)
        made.start("n2", cpus=1)
        yield from on_ray_of(with_latents, made)


class Training:
    """The experiment as it trains; what holds its rank."""

    def __init__(self, ray: OnRay) -> None:
        self.ray = ray
        experiment = ray.stx.folder / "two.yaml"
        experiment.write_text(EXPERIMENT)
        self.process = ray.start(experiment)
        wait_for(lambda: any(ray.stx.store.glob("stages/train-*/checkpoints/*/manifest.json")), limit=240)
        (folder,) = ray.stx.store.glob("stages/train-*/attempts/001")
        self.attempt = AttemptDir(folder)

    def pid(self, victim: str) -> int:
        """What is to be killed."""
        match victim:
            case "rank":
                return int(self.attempt.alive(0).read_text())
            case "supervisor":
                return supervisor_of(self.attempt, 0)
            case "actor":
                return actor_of(self.attempt, 0)
        return self.driver

    @property
    def driver(self) -> int:
        """The coordinator's child."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        command = b"jobs.launchers.ray.driver"
        return next(int(pid) for pid in children if command in Path(f"/proc/{pid}/cmdline").read_bytes())

    def end(self) -> None:
        """Wait for it; it must be well."""
        out, err = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, f"{out}\n{err}"

    def check(self, untouched: dict[str, str], *left: tuple[str, str]) -> None:
        """Every image once, attempts one after another, and the weights of a local run."""
        (run,) = self.ray.stx.store.glob("stages/train-*")
        assert [(one.result, one.cause) for one in history.attempts(StageDir(run))] == [*left, ("COMPLETED", "")]
        check_that_every_image_was_trained_once(run)
        assert self.ray.stx.digests() == untouched
        if left and self.attempt.outcome(0).exists():
            again = AttemptDir(self.attempt.path.with_name("002"))
            assert self.attempt.outcome(0).stat().st_mtime <= again.started.stat().st_mtime, "one at a time"


@pytest.mark.parametrize(
    ("victim", "left"),
    [
        ("rank", [("FAILED", "LOST")]),
        ("supervisor", [("FAILED", "LOST")]),
        ("actor", [("YIELDED", "")]),
        ("driver", []),
    ],
)
def test_a_killed_process_of_a_job_costs_at_most_an_attempt_and_no_bit(victim, left, ray_with_latents, untouched):
    training = Training(ray_with_latents)
    os.kill(training.pid(victim), signal.SIGKILL)
    training.end()
    training.check(untouched, *left)


def test_a_killed_raylet_takes_its_jobs_along_which_go_on_at_the_next_node_that_joins(alone, untouched):
    training = Training(alone)
    made = alone.cluster
    os.kill(made.nodes["n2"].raylet, signal.SIGKILL)
    wait_for(training.attempt.outcome(0).exists, limit=240)
    made.nodes["n2"].kill()  # Ray's own agent goes on without its raylet, and takes a core
    made.start("n3", cpus=1)
    training.end()
    training.check(untouched, ("YIELDED", ""))


def test_an_experiment_whose_head_was_killed_waits_and_goes_on_in_the_next_cluster(alone, untouched):
    training = Training(alone)
    made = alone.cluster
    made.down()
    wait_for(training.attempt.outcome(0).exists, limit=240)
    words = "nobody answers there"
    wait_for(lambda: words in alone.stx.run("status", "two", "--store", str(alone.stx.store)).stdout, limit=240)
    made.nodes.clear()
    made.start("n4", cpus=1)
    training.end()
    training.check(untouched, ("YIELDED", ""))


def test_a_cluster_of_our_own_whose_head_was_killed_is_followed_by_another_one(with_latents, untouched):
    with_latents.env |= {"HOME": str(with_latents.folder)}
    ours = OnRay(with_latents, None, None)
    ours.file.write_text(OURS)
    training = Training(ours)
    (clusters,) = with_latents.store.glob("ray/cluster@*/")
    told = json.loads((clusters / "001/node-0.json").read_text())
    os.kill(int(told["process"].partition(":")[0]), signal.SIGKILL)
    training.end()
    training.check(untouched, ("YIELDED", ""))
    assert [path.name for path in sorted(clusters.glob("0*"))] == ["001", "002"]
    wait_for(lambda: not of_home(with_latents.folder), limit=240)
