"""Jobs that wait for GPUs keep nobody waiting who needs none."""

from stx import plan
from stx.config.cluster import Cluster
from stx.config.load import load_experiment
from stx.coordinator import limits
from stx.coordinator.attempts import load_kind
from tests.conftest import SMALL

GPUS = {"default": {"gpus_per_rank": 1}, "freeze": {"gpus_per_rank": 0}}


def apart(tmp_path, **options):
    path = tmp_path / "e.yaml"
    path.write_text(SMALL)
    cluster = Cluster.model_validate({"stages": GPUS, **options})
    graph = plan.expand(load_experiment(path), cluster)
    return limits.policy(cluster, graph, load_kind=load_kind).apart


def test_kinds_that_take_gpus_wait_apart_but_not_on_slurm(tmp_path):
    found = apart(tmp_path, launcher="ray", ray={"address": "head:6379"})
    assert {"train", "features", "sample"} <= set(found) and not {"images", "freeze"} & set(found)
    assert apart(tmp_path) == found
    assert apart(tmp_path, launcher="slurm") == ()
    assert apart(tmp_path, stages={}) == ()


def test_stages_without_gpus_pass_those_that_wait_for_them(world, sim, monkeypatch):
    monkeypatch.setattr(limits, "_takes_gpus", lambda kind, node, cluster: node.spec.kind == "train")
    large = tuple(sim.node("train", f"t{index}", wants=(2,), salt=str(index), priority=9) for index in range(4))
    small = tuple(sim.node("images", f"n{index}", salt=str(index), priority=1) for index in range(4))
    graph = type(sim.single("a"))("a", (*large, *small))
    world.start(graph, cluster=world.cluster(limits={"queued": 2, "running": 9}))
    world.rounds(2)
    kinds = sorted(job.folder.path.parent.parent.name.partition("-")[0] for job in world.launcher.jobs)
    assert kinds == ["images", "images", "train", "train"]
