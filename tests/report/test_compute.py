"""What a milestone cost: everything it stands on, each key once, in FLOPs and in hours of devices."""

from typing import Any

import pytest

from stx.report.collect import collect
from stx.report.compute import total_compute, total_hours, train_hours
from stx.report.facts import Facts, StageFacts
from stx.report.history import AttemptFacts
from stx.spec import Artifact, Cost, Input


def test_total_compute_counts_phase_one_and_the_cache_but_no_data_preparation(quickstart: Any) -> None:
    nodes = {node.key: node for node in quickstart.nodes}
    phase2 = next(node for node in quickstart.nodes if node.name == "phase2:guidance=5,seed=0")
    own, phase1, cache = 1e9 * 16_000, 1e9 * 32_000, 2e12
    assert total_compute(phase2, images=16_000, nodes=nodes) == pytest.approx(own + phase1 + cache)


def test_shared_ancestors_are_counted_once(world: Any) -> None:
    first = world.add("first", "train", cost=Cost(flops_per_image=1.0))
    teacher = world.add("teacher", "freeze", inputs={"run": Input("train", first.key, 10)})
    cache = world.add("cache", "features", inputs={"teacher": Input("freeze", teacher.key)}, cost=Cost(5.0))
    inputs = {"a": Input("freeze", teacher.key), "b": Input("features", cache.key)}
    run = world.add("run", "train", inputs=inputs, cost=Cost(flops_per_image=2.0))
    assert total_compute(run, images=100, nodes={node.key: node for node in world.nodes}) == 200 + 10 + 5


def test_a_milestone_before_the_stop_step_pays_for_all_of_its_alignment(world: Any) -> None:
    cost = Cost(flops=40.0, flops_per_image=3.0, stop_images=10, flops_per_image_after_stop=1.0)
    run = world.add("run", "train", cost=cost)
    found = [total_compute(run, images=images, nodes={run.key: run}) for images in (5, 10, 20)]
    assert found == [15.0, 30.0, 40.0]


def stage(world: Any, *, lineage: list[list[int]], devices: dict[int, int], seconds: float = 3600.0) -> StageFacts:
    """A train stage at 100 images, by attempts of so many cores each."""
    info = {"lineage": lineage, "seconds": seconds}
    artifact = Artifact(kind="train", key="k", images=100, files={}, info=info)
    attempts = [
        AttemptFacts(number, "COMPLETED", "", "", ranks=cores, seconds=9e9, recomputed_images=0, cores=cores)
        for number, cores in devices.items()
    ]
    return StageFacts(node=world.add("run", "train"), artifacts={100: artifact}, attempts=attempts)


def test_hours_are_the_time_of_the_lineage_times_its_devices(world: Any) -> None:
    one = stage(world, lineage=[[0, 60, 1], [60, 100, 3]], devices={1: 4, 2: 4, 3: 4})
    assert train_hours(one, images=100, gpus=False) == pytest.approx(4.0)


def test_a_lineage_that_changed_its_devices_is_split_by_what_they_can_do(world: Any) -> None:
    # 80 of 100 images by 4 cores, 20 by 1: as long for each, so half the hour by 4 and half by 1.
    one = stage(world, lineage=[[0, 80, 1], [80, 100, 2]], devices={1: 4, 2: 1})
    assert train_hours(one, images=100, gpus=False) == pytest.approx(0.5 * 4 + 0.5 * 1)


def test_hours_that_nobody_recorded_are_not_made_up(world: Any) -> None:
    one = stage(world, lineage=[], devices={1: 1})
    assert train_hours(one, images=100, gpus=False) is None
    gone = stage(world, lineage=[[0, 100, 7]], devices={1: 1})
    assert train_hours(gone, images=100, gpus=False) is None


def test_total_hours_count_phase_one_and_every_attempt_of_the_cache(quickstart: Any, facts: Facts) -> None:
    last = {(s.series.label, s.seed): s for s in facts.scores if s.images == 32_000}
    nodes, stages = {n.key: n for n in quickstart.nodes}, {s.node.key: s for s in facts.stages}
    phase2 = last["phase2 guidance=5", "0"]
    assert phase2.hours == pytest.approx((30.0 + 30.0 + 40.0 * 2) / 3600)
    cache = next(node for node in quickstart.nodes if node.stage == "features")
    assert total_hours(cache, images=None, nodes=nodes, stages=stages, gpus=False) is not None
    assert facts.hours_unit == "core-hours"


def test_time_is_told_in_gpu_hours_once_a_run_was_trained_on_a_gpu(world: Any, add_scored_run: Any) -> None:
    add_scored_run(world, "vanilla", method="vanilla", layout={"ranks": 2, "gpus_per_rank": 1, "cpus_per_rank": 8})
    world.save()
    facts = collect(world.store, world.experiment)
    assert facts.hours_unit == "GPU-hours"
    assert facts.scores[-1].hours == pytest.approx(2 * 30.0 / 3600)
