"""What the report dares to say."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stx.report.claims import Side, compare, equal_compute, equal_images
from stx.report.facts import Facts, Origin, Score, Series

EMPTY = Facts("e", "frechet_distance", (), "base", (), (), (), (), (), (), (), (), Origin(text="", graph=""))
BASE, NEW = Series("base", (), "base"), Series("new", (), "new")


def score(series: Series, *, seed: int, images: int, compute: float, value: float) -> Score:
    return Score(series, str(seed), series.label, "scores", images, compute, {"frechet_distance": value}, {}, "d")


def facts(scores: Sequence[Score]) -> Facts:
    return replace(EMPTY, series=(BASE, NEW), scores=scores)


def ask(claim: Any, scores: Sequence[Score]) -> str:
    (sentence,) = claim(facts(scores), metric="frechet_distance", judge="scores")
    return str(sentence)


def test_ranges_that_touch_claim_nothing() -> None:
    words = compare(Side("a", [1.0, 1.2]), Side("b", [1.2, 1.5]), metric="frechet_distance")
    assert words.endswith("the seeds' ranges touch, so no difference is claimed.")


def test_higher_is_better_for_accuracies() -> None:
    words = compare(Side("a", [0.8, 0.9]), Side("b", [0.5, 0.6]), metric="label_accuracy")
    assert "**a is better by 55%**" in words


def test_equal_images_uses_the_last_count_that_both_have() -> None:
    scores = [score(BASE, seed=s, images=n, compute=n, value=2.0 + s / 100) for s in (0, 1) for n in (10, 20, 40)]
    scores += [score(NEW, seed=s, images=n, compute=n, value=1.0 + s / 100) for s in (0, 1) for n in (10, 20)]
    assert ask(equal_images, scores).startswith("At 20 images seen, new 1.005")


def test_equal_compute_reads_the_baseline_between_its_milestones() -> None:
    scores = [score(BASE, seed=s, images=n, compute=n, value=30.0 / n) for s in (0, 1) for n in (10, 30)]
    scores += [score(NEW, seed=s, images=10, compute=20.0, value=2.5) for s in (0, 1)]
    words = ask(equal_compute, scores)
    assert "base 2.000 (mean of 2 seeds, 2.000 to 2.000) (read between its milestones)" in words
    assert "**base is better by 20%**" in words


@pytest.mark.parametrize("value", [0.5, 1.5])
def test_baseline_that_never_spent_as_much_settles_nothing_whoever_is_ahead(value: float) -> None:
    scores = [score(BASE, seed=s, images=30, compute=30, value=1.0) for s in (0, 1)]
    scores += [score(NEW, seed=s, images=30, compute=60, value=value) for s in (0, 1)]
    words = ask(equal_compute, scores)
    assert "base was trained to 30 FLOP only" in words
    assert words.endswith("so nothing is said about equal compute.")
    assert "better" not in words


def test_baseline_that_was_scored_only_later_settles_nothing() -> None:
    scores = [score(BASE, seed=s, images=90, compute=90, value=1.0) for s in (0, 1)]
    scores += [score(NEW, seed=s, images=30, compute=60, value=1.5) for s in (0, 1)]
    assert "base was not scored that early, so nothing is said" in ask(equal_compute, scores)


VALUES = st.lists(st.floats(min_value=0.1, max_value=10), min_size=1, max_size=4)


@given(one=VALUES, other=VALUES)
def test_a_claim_always_has_two_seeds_on_both_sides_and_names_the_better(one: list[float], other: list[float]) -> None:
    words = compare(Side("one", one), Side("other", other), metric="frechet_distance")
    if "is better" in words:
        assert min(len(one), len(other)) >= 2
        winner, loser = (one, other) if "**one" in words else (other, one)
        assert max(winner) < min(loser)
