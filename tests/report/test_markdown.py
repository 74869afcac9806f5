"""The report over a fabricated quickstart: what it says, what it draws, what it never claims."""

import json
from typing import Any

from stx.report import markdown, tables
from stx.report.collect import collect
from stx.report.draw import Drawn, draw
from stx.report.facts import Facts


def text(world: Any) -> str:
    facts = collect(world.store, world.experiment)
    return markdown.text(facts, draw(facts))


def test_a_difference_is_claimed_only_with_two_seeds_on_both_sides(facts: Facts, drawn: Drawn) -> None:
    words = markdown.text(facts, drawn)
    assert "**phase2 guidance=5 is better by 27%**" in words
    assert "one seed only of phase2 guidance=1, so no difference is claimed" in words
    assert "one seed only of phase1, so no difference is claimed" in words


def test_equal_compute_is_not_guessed_where_the_baseline_was_not_trained_that_far(facts: Facts, drawn: Drawn) -> None:
    words = markdown.text(facts, drawn)
    assert "At 66 TFLOP of total compute, phase2 guidance=5 0.9950" in words
    assert "vanilla was trained to 32 TFLOP only" in words


def test_equal_compute_says_so_when_the_baseline_wins(world: Any, add_scored_run: Any) -> None:
    for seed in (0, 1):
        add_scored_run(
            world,
            f"vanilla:seed={seed}",
            method="vanilla",
            milestones=(16_000, 32_000, 80_000),
            point={"seed": seed},
        )
        add_scored_run(world, f"phase1:seed={seed}", method="phase1", milestones=(16_000, 64_000), point={"seed": seed})
    world.save(series=["vanilla", "phase1"])
    words = text(world)
    assert "At 64 TFLOP of total compute, phase1" in words
    assert "(read between its milestones) (frechet_distance): **vanilla is better by" in words


def test_unfinished_experiment_is_reported_as_far_as_it_got(world: Any, add_scored_run: Any) -> None:
    run = add_scored_run(world, "vanilla", method="vanilla", scored=False)
    world.add("later", "command")
    world.save()
    words = text(world)
    assert "**Not finished:** 2 of 4 stages (scores:vanilla, later)" in words
    assert "## Scores" not in words
    assert run.key[:8] in words


def test_protocol_table_names_the_whole_protocol(facts: Facts) -> None:
    table = tables.protocol(facts)
    assert dict(table.rows) == {
        "frechet_distance": "Frechet distance in the 64-d features of classifier c1a551f1 (not FID)",
        "classifier": "ours, trained on the real images; right on 0.982 of held-out ones",
        "generated": "500 samples, labels balanced, seed 0, in chunks of 50",
        "sampler": "euler, 25 steps, guidance 1 inside t of [0, 1]",
        "weights": "ema, decay 0.98",
        "compared with": "4500 images of the train split of 1ba9e5f1",
        "batch": "50",
    }


def test_unknown_parts_of_a_protocol_are_shown_as_they_are() -> None:
    assert tables.protocol_words({"weights": "raw", "new": {"thing": 1.0}}) == {"weights": "raw", "new.thing": "1"}


def test_report_reads_no_pickled_samples(world: Any, add_scored_run: Any) -> None:
    add_scored_run(world, "vanilla", method="vanilla")
    world.save()
    facts = collect(world.store, world.experiment)
    assert json.loads((facts.samples[0].folder / "artifact.json").read_text())["images"] == 16_000
