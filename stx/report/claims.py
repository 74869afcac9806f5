"""What may be said about the scores, computed from them: at equal images seen and at equal total compute. Pure.

A difference is claimed only where both sides have at least two seeds and the seeds' ranges do not touch; otherwise
the numbers are given with the reason why nothing is claimed. Nothing here knows which method ought to win.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from stx.report.facts import Facts, Score, Series
from stx.report.words import flops, number, plural

LOWER_IS_BETTER = frozenset({"frechet_distance"})


@dataclass(frozen=True)
class Side:
    """The values of one series' seeds at one place of the axis; `how` says how they were read there."""

    label: str
    values: Sequence[float]
    how: str = ""


def equal_images(facts: Facts, *, metric: str, judge: str) -> list[str]:
    """One sentence per series against the baseline at the last images-seen count that both have."""
    baseline = _baseline(facts)
    if baseline is None:
        return []
    base = _by_images(facts, series=baseline, metric=metric, judge=judge)
    sentences = []
    for series in facts.series:
        own = _by_images(facts, series=series, metric=metric, judge=judge)
        common = sorted(set(base) & set(own))
        if series != baseline and common:
            last = common[-1]
            verdict = compare(Side(series.label, own[last]), Side(baseline.label, base[last]), metric=metric)
            sentences.append(f"At {last:,} images seen, {verdict}")
    return sentences


def equal_compute(facts: Facts, *, metric: str, judge: str) -> list[str]:
    """One sentence per series: its last milestone against what the baseline makes of the same total compute, at a
    milestone or between two. Where it has none on both sides there is no verdict, whoever is ahead.
    """
    baseline = _baseline(facts)
    if baseline is None:
        return []
    curves = _compute_curves(facts, series=baseline, metric=metric, judge=judge)
    sentences = []
    for series in facts.series:
        mine = _compute_curves(facts, series=series, metric=metric, judge=judge)
        if series == baseline or not mine or not curves:
            continue
        compute = max(points[-1][0] for points in mine.values())
        own = Side(series.label, [points[-1][1] for points in mine.values() if math.isclose(points[-1][0], compute)])
        sentences.append(_against_compute(own, curves, compute=compute, baseline=baseline.label, metric=metric))
    return sentences


def compare(one: Side, other: Side, *, metric: str) -> str:
    """A sentence's second half: what the numbers of two sides allow to be said."""
    numbers = f"{_values(one)} against {_values(other)} ({metric})"
    few = [side.label for side in (one, other) if len(side.values) < 2]
    if few:
        return f"{numbers}: one seed only of {' and of '.join(few)}, so no difference is claimed."
    best, worst = (one, other) if _better(fmean(one.values), fmean(other.values), metric=metric) else (other, one)
    apart = all(_better(a, b, metric=metric) for a in best.values for b in worst.values)
    if not apart:
        return f"{numbers}: the seeds' ranges touch, so no difference is claimed."
    percent = 100 * abs(fmean(one.values) - fmean(other.values)) / max(abs(fmean(worst.values)), 1e-12)
    return f"{numbers}: **{best.label} is better by {percent:.0f}%**."


def lower_is_better(metric: str) -> bool:
    """Which way is up."""
    return metric in LOWER_IS_BETTER


def _better(one: float, other: float, *, metric: str) -> bool:
    return one < other if lower_is_better(metric) else one > other


def _values(side: Side) -> str:
    return f"{side.label} {_numbers(side)}"


def _numbers(side: Side) -> str:
    mean = number(fmean(side.values))
    if len(side.values) == 1:
        return f"{mean}{side.how}"
    spread = f"{number(min(side.values))} to {number(max(side.values))}"
    return f"{mean} (mean of {plural(len(side.values), 'seed')}, {spread}){side.how}"


def _baseline(facts: Facts) -> Series | None:
    return next((series for series in facts.series if series.stage == facts.baseline), None)


def _chosen(facts: Facts, *, series: Series, metric: str, judge: str) -> list[Score]:
    return [s for s in facts.scores if s.series == series and s.judge == judge and metric in s.values]


def _by_images(facts: Facts, *, series: Series, metric: str, judge: str) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for score in _chosen(facts, series=series, metric=metric, judge=judge):
        found.setdefault(score.images, []).append(score.values[metric])
    return found


def _compute_curves(facts: Facts, *, series: Series, metric: str, judge: str) -> dict[str, list[tuple[float, float]]]:
    """By seed: (total compute, score), ascending."""
    found: dict[str, list[tuple[float, float]]] = {}
    for score in _chosen(facts, series=series, metric=metric, judge=judge):
        found.setdefault(score.seed, []).append((score.compute, score.values[metric]))
    return {seed: sorted(points) for seed, points in found.items()}


def _against_compute(
    own: Side, curves: Mapping[str, Sequence[tuple[float, float]]], *, compute: float, baseline: str, metric: str
) -> str:
    at = f"At {flops(compute)} of total compute"
    reached = [_interpolate(points, compute=compute) for points in curves.values()]
    values = [value for value in reached if value is not None]
    if values:
        exact = all(any(math.isclose(compute, x) for x, _ in points) for points in curves.values())
        how = "" if exact else " (read between its milestones)"
        return f"{at}, {compare(own, Side(baseline, values, how), metric=metric)}"
    furthest = max(points[-1][0] for points in curves.values())
    if furthest > compute:
        return f"{at}, {_values(own)}; {baseline} was not scored that early, so nothing is said ({metric})."
    last = Side(baseline, [points[-1][1] for points in curves.values() if math.isclose(points[-1][0], furthest)])
    return (
        f"{at}, {_values(own)} ({metric}); {baseline} was trained to {flops(furthest)} only, where it is at "
        f"{_numbers(last)}, so nothing is said about equal compute."
    )


def _interpolate(points: Sequence[tuple[float, float]], *, compute: float) -> float | None:
    """Linear between the milestones on both sides; None beyond them."""
    for x, y in points:
        if math.isclose(x, compute):
            return y
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 < compute < x1:
            return y0 + (y1 - y0) * (compute - x0) / (x1 - x0)
    return None
