"""Facts out of a store: series, seeds, total compute, lineage."""

from dataclasses import replace
from typing import Any

from stx.report.collect import collect
from stx.report.facts import Facts


def test_seeds_repeat_a_series_and_other_swept_options_make_their_own(facts: Facts) -> None:
    labels = [series.label for series in facts.series]
    assert labels == ["vanilla", "phase1", "phase2 guidance=1", "phase2 guidance=5", "phase2 guidance=30"]
    seeds = {score.seed for score in facts.scores if score.series.label == "phase2 guidance=5"}
    assert seeds == {"0", "1"}


def test_only_asked_series_are_told_in_the_asked_order(world: Any, add_scored_run: Any) -> None:
    for name in ("vanilla", "phase2", "phase1"):
        add_scored_run(world, name, method=name)
    world.save(series=["phase1", "vanilla"])
    facts = collect(world.store, world.experiment)
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


def test_a_stage_that_goes_further_than_another_of_its_key_has_its_own_scores(world: Any, add_scored_run: Any) -> None:
    run = add_scored_run(world, "vanilla", method="vanilla")
    first, last = run.wants
    for place, node in enumerate(tuple(world.nodes)):
        if node.wants == run.wants:  # until the first milestone in one, until the last in the other
            flops = node.cost.until(first) if node is run else node.cost.flops / 2
            world.nodes[place] = replace(node, wants=(first,), cost=replace(node.cost, flops=flops))
            world.nodes.append(replace(node, name=f"long {node.name}", stage=f"long {node.stage}"))
    world.save(series=["vanilla", "long vanilla"])
    facts = collect(world.store, world.experiment)
    assert [(score.series.label, score.images) for score in facts.scores] == [
        ("vanilla", first),
        ("long vanilla", first),
        ("long vanilla", last),
    ]
    stage = next(stage for stage in facts.stages if stage.node.key == run.key)
    assert (set(stage.artifacts), stage.node.cost.flops) == ({first, last}, run.cost.until(last))


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
