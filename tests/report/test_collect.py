"""Facts out of a store: series, seeds, total compute, lineage."""

from typing import Any

import pytest

from stx.report.collect import collect, total_compute
from stx.spec import Cost, Input


def test_seeds_repeat_a_series_and_other_swept_options_make_their_own(quickstart: Any) -> None:
    facts = collect(quickstart.store, quickstart.experiment)
    labels = [series.label for series in facts.series]
    assert labels == ["vanilla", "phase1", "phase2 guidance=1", "phase2 guidance=5", "phase2 guidance=30"]
    seeds = {score.seed for score in facts.scores if score.series.label == "phase2 guidance=5"}
    assert seeds == {"0", "1"}


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


def test_only_asked_series_are_told_in_the_asked_order(quickstart: Any) -> None:
    quickstart.save(series=["phase1", "vanilla"])
    facts = collect(quickstart.store, quickstart.experiment)
    assert [series.label for series in facts.series] == ["phase1", "vanilla"]
    assert facts.baseline == "phase1"


def test_two_stages_that_share_a_key_are_both_told(world: Any, add_scored_run: Any) -> None:
    run = add_scored_run(world, "vanilla", method="vanilla")
    twin = type(run)(name="again", stage="again", spec=run.spec, wants=run.wants, cost=run.cost)
    world.nodes.append(twin)
    world.save()
    facts = collect(world.store, world.experiment)
    assert {score.series.label for score in facts.scores} == {"vanilla", "again"}
    assert len(facts.stages) == 3


def test_the_points_of_a_run_are_no_variation_of_its_scores(world: Any, add_scored_run: Any) -> None:
    for seed in (0, 1):
        add_scored_run(world, f"vanilla:seed={seed}", method="vanilla", point={"seed": seed}, stage="vanilla")
    world.save()
    facts = collect(world.store, world.experiment)
    assert {(score.judge, score.seed) for score in facts.scores} == {("scores", "0"), ("scores", "1")}


def test_scores_of_a_guidance_swept_sampler_are_kept_apart(world: Any, add_scored_run: Any) -> None:
    run = add_scored_run(world, "vanilla", method="vanilla")
    judge = next(node for node in world.nodes if node.stage == "scores")
    swept = type(judge)(
        name=judge.name, stage=judge.stage, spec=judge.spec, wants=judge.wants, point={"samples.sampler.guidance": 2.0}
    )
    world.nodes[world.nodes.index(judge)] = swept
    world.save()
    facts = collect(world.store, world.experiment)
    assert {(score.run, score.judge) for score in facts.scores} == {(run.name, "scores guidance=2")}
