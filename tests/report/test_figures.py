"""Charts of scores: which there are, what they count, and that many values keep apart."""

import itertools
import re
from typing import Any

from stx.report import figures
from stx.report.collect import collect
from stx.report.draw import Drawn
from stx.report.facts import Facts


def test_scores_are_drawn_against_images_compute_and_hours_and_the_sweep(drawn: Drawn) -> None:
    ((judge, charts),) = drawn.scores
    assert judge == "scores"
    assert [chart.title for chart in charts] == [
        "Frechet distance against images seen",
        "Frechet distance against total compute",
        "Frechet distance against core-hours",
        "Frechet distance against guidance",
    ]


def test_a_series_has_one_colour_in_all_charts(drawn: Drawn) -> None:
    indices: dict[str, set[int]] = {}
    for chart in drawn.charts:
        for key in chart.keys:
            indices.setdefault(key.label.split(" (")[0], set()).add(key.index)
    assert all(len(found) == 1 for found in indices.values())
    assert len(indices) == 5


def test_hours_that_were_not_recorded_make_no_chart(world: Any, add_scored_run: Any) -> None:
    run = add_scored_run(world, "vanilla", method="vanilla")
    world.store.stage("train", run.key).attempt(1).attempt.unlink()
    for path in world.store.stages.glob("train-*/milestones/*/artifact.json"):
        path.write_text(path.read_text().replace('"lineage"', '"other"'))
    world.save()
    facts = collect(world.store, world.experiment)
    assert figures.score_chart(facts, x="gpu_hours", judge="scores", name="n") is None
    assert figures.score_chart(facts, x="images_seen", judge="scores", name="n") is not None


def test_ticks_of_a_long_sweep_keep_apart(world: Any, add_scored_run: Any) -> None:
    for value in range(1, 31):
        point = {"alignment.guidance": float(value)}
        add_scored_run(
            world, f"phase2:guidance={value}", method="phase2", stage="phase2", milestones=(16_000,), point=point
        )
    world.save()
    facts: Facts = collect(world.store, world.experiment)
    chart = figures.sweep_chart(facts, stage="phase2", option="alignment.guidance", judge="scores", name="n")
    assert chart is not None
    ticks = re.search(r'id="n-matplotlib\.axis_1".*?id="n-matplotlib\.axis_2"', chart.svg, re.DOTALL)
    assert ticks is not None
    words = [int(word) for word in re.findall(r">(\d+)</text>", ticks[0])]
    assert 4 <= len(words) <= 10
    assert all(b / a >= 30 ** (1 / 9) - 1e-9 for a, b in itertools.pairwise(words))
