"""The report over a fabricated quickstart: what it says, what it draws, what it never claims."""

import json
from typing import Any

from stx.report import markdown, tables
from stx.report.collect import collect


def test_report_is_written_with_every_figure_it_shows(quickstart: Any) -> None:
    facts = collect(quickstart.store, quickstart.experiment)
    path = markdown.write(facts, experiment=quickstart.experiment)
    text = path.read_text()
    figures = sorted(file.name for file in path.parent.glob("*.png"))
    assert figures == [
        "losses.png",
        "samples.png",
        "score-images_seen.png",
        "score-total_compute.png",
        "sweep-phase2-alignment_guidance.png",
    ]
    assert all(f"]({name})" in text for name in figures)
    assert text.startswith("# quickstart\n\nAll 25 stages finished.")


def test_a_difference_is_claimed_only_with_two_seeds_on_both_sides(quickstart: Any) -> None:
    text = markdown.text(collect(quickstart.store, quickstart.experiment), figure_names=[])
    assert "**phase2 guidance=5 is better by 27%**" in text
    assert "one seed only of phase2 guidance=1, so no difference is claimed" in text
    assert "one seed only of phase1, so no difference is claimed" in text


def test_equal_compute_is_not_guessed_where_the_baseline_was_not_trained_that_far(quickstart: Any) -> None:
    text = markdown.text(collect(quickstart.store, quickstart.experiment), figure_names=[])
    assert "At 66 TFLOP of total compute, phase2 guidance=5 0.9950" in text
    assert "vanilla was trained to 32 TFLOP only" in text


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
    text = markdown.text(collect(world.store, world.experiment), figure_names=[])
    assert "At 64 TFLOP of total compute, phase1" in text
    assert "(read between its milestones) (frechet_distance): **vanilla is better by" in text


def test_unfinished_experiment_is_reported_as_far_as_it_got(world: Any, add_scored_run: Any) -> None:
    run = add_scored_run(world, "vanilla", method="vanilla", scored=False)
    world.add("later", "command")
    world.save()
    facts = collect(world.store, world.experiment)
    path = markdown.write(facts, experiment=world.experiment)
    text = path.read_text()
    assert "**Not finished:** 2 of 4 stages (scores:vanilla, later)" in text
    assert "## Scores" not in text
    assert run.key[:8] in text


def test_stale_figures_of_an_earlier_report_are_removed(world: Any, add_scored_run: Any) -> None:
    add_scored_run(world, "vanilla", method="vanilla")
    world.save()
    world.experiment.report.mkdir(parents=True)
    (world.experiment.report / "sweep-gone.png").write_bytes(b"old")
    markdown.write(collect(world.store, world.experiment), experiment=world.experiment)
    assert not (world.experiment.report / "sweep-gone.png").exists()


def test_protocol_table_names_the_whole_protocol(quickstart: Any) -> None:
    table = tables.protocol(collect(quickstart.store, quickstart.experiment))
    assert dict(table.rows) == {
        "frechet_distance": "Frechet distance in the 64-d features of classifier c1a551f1 (not FID)",
        "classifier": "ours, trained on the real images; right on 0.982 of held-out ones",
        "generated": "500 samples, labels balanced, seed 0, in chunks of 50",
        "sampler": "euler, 25 steps, guidance 1 inside t of [0, 1]",
        "weights": "ema, decay 0.98",
        "compared with": "4500 images of the train split of 1ba9e5f1",
        "batch": "50",
    }


def test_unknown_parts_of_a_protocol_are_shown_as_they_are(quickstart: Any) -> None:
    assert tables.protocol_words({"weights": "raw", "new": {"thing": 1.0}}) == {"weights": "raw", "new.thing": "1"}


def test_report_reads_no_pickled_samples(world: Any, add_scored_run: Any) -> None:
    add_scored_run(world, "vanilla", method="vanilla")
    world.save()
    facts = collect(world.store, world.experiment)
    assert json.loads((facts.samples[0].folder / "artifact.json").read_text())["images"] == 16_000
