"""The report's charts of scores: the metric against images seen, against total compute, against the hours of the
devices, and against what was swept.

Seeds are dots; where there are at least two, a line through their mean and a band from the lowest to the highest. A
series has one colour and marker everywhere.
"""

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from matplotlib.ticker import NullLocator

from stx.report import canvas, theme
from stx.report.canvas import Chart, Key
from stx.report.claims import lower_is_better
from stx.report.collect import short
from stx.report.facts import Facts, Score, Series
from stx.report.words import plain, plural

LINE = "Lines are means over seeds, bands the range from the lowest to the highest seed, small dots the seeds."


def axis_words(facts: Facts, *, x: str) -> tuple[str, str]:
    """(label of the axis, what it counts)."""
    unit = facts.hours_unit
    return {
        "images_seen": ("images seen", "Equal images seen: what it cost to get there is not counted."),
        "total_compute": (
            "total compute, FLOP",
            "Equal compute: own training, and every run, teacher and cache it stands on (phase 1 included).",
        ),
        "gpu_hours": (
            unit,
            f"Equal time: {unit} of the lineage, and of every run, teacher and cache it stands on.",
        ),
    }[x]


def place(score: Score, *, x: str) -> float | None:
    """Where a score lies on an axis."""
    return {"images_seen": float(score.images), "total_compute": score.compute, "gpu_hours": score.hours}[x]


def score_chart(facts: Facts, *, x: str, judge: str, name: str) -> Chart | None:
    """The report's metric against images seen, total compute or hours, one line per series."""
    scores = [s for s in facts.scores if s.judge == judge and facts.y in s.values and place(s, x=x) is not None]
    if not scores:
        return None
    label, words = axis_words(facts, x=x)
    with canvas.axes() as axes:
        keys = []
        for index, series in enumerate(facts.series):
            own = [score for score in scores if score.series == series]
            if own:
                _draw_series(axes, own, x=x, metric=facts.y, index=index)
                keys.append(series_key(facts, series))
        axes.set_xlabel(label)
        _metric_axis(axes, metric=facts.y, values=[score.values[facts.y] for score in scores])
        canvas.count_axis(axes)
        return canvas.finish(
            axes,
            name=name,
            title=f"{_sentence(facts.y)} against {label.split(',')[0]}",
            caption=f"{words} {LINE}",
            alt=f"{_words(facts.y)} of {plural(len(keys), 'series')} against {label}; the numbers are in the table "
            "of every score",
            keys=keys,
        )


def series_key(facts: Facts, series: Series) -> Key:
    """The legend's line of a series."""
    seeds = {score.seed for score in facts.scores if score.series == series}
    return Key(f"{series.label} ({seed_words(len(seeds))})", list(facts.series).index(series))


def seed_words(count: int) -> str:
    """One seed, 2 seeds."""
    return "one seed" if count == 1 else f"{count} seeds"


def _draw_series(axes: Any, scores: Sequence[Score], *, x: str, metric: str, index: int) -> None:
    groups: dict[int, list[Score]] = {}
    for score in scores:
        groups.setdefault(score.images, []).append(score)
    xs = [fmean(place(score, x=x) or 0.0 for score in group) for _, group in sorted(groups.items())]
    values = [[score.values[metric] for score in group] for _, group in sorted(groups.items())]
    num_seeds = len({score.seed for score in scores})
    style = canvas.style_of(index)
    axes.plot(xs, [fmean(v) for v in values], **style, label=f"{scores[0].series.label} ({seed_words(num_seeds)})")
    if num_seeds > 1:
        axes.fill_between(
            xs, [min(v) for v in values], [max(v) for v in values], color=style["color"], alpha=0.18, linewidth=0
        )
        dots = [(spot, value) for spot, many in zip(xs, values, strict=True) for value in many]
        axes.scatter(*zip(*dots, strict=True), color=style["color"], s=8, alpha=0.8, zorder=3, linewidths=0)


def swept_options(facts: Facts) -> list[tuple[str, str]]:
    """(stage, option) of the numeric options, other than seeds, that were swept over at least two values."""
    values: dict[tuple[str, str], set[float]] = {}
    for series in facts.series:
        for name, value in series.options:
            if isinstance(value, int | float) and not isinstance(value, bool):
                values.setdefault((series.stage, name), set()).add(float(value))
    return sorted(key for key, found in values.items() if len(found) > 1)


def sweep_chart(facts: Facts, *, stage: str, option: str, judge: str, name: str) -> Chart | None:
    """The metric against a swept option at the last milestone of the whole sweep, with the baseline as a level."""
    sweep = [series for series in facts.series if series.stage == stage and option in dict(series.options)]
    scores = [s for s in facts.scores if s.judge == judge and facts.y in s.values]
    counts = [{s.images for s in scores if s.series == series} for series in sweep]
    common = set.intersection(*counts) if counts else set()
    if not common:
        return None
    images = max(common)
    at = [s for s in scores if s.images == images]
    baseline = next((s for s in facts.series if s.stage == facts.baseline != stage), None)
    with canvas.axes() as axes:
        of: Callable[[Series], list[float]] = lambda one: [s.values[facts.y] for s in at if s.series == one]  # noqa: E731
        keys = [series_key(facts, series) for series in sweep]
        if baseline is not None and of(baseline):
            keys.insert(0, _draw_level(axes, of(baseline), facts=facts, series=baseline))
        for rest in dict.fromkeys(_rest(series, option=option) for series in sweep):
            members = [series for series in sweep if _rest(series, option=option) == rest]
            _draw_sweep(axes, {member: of(member) for member in members}, facts=facts, option=option, rest=rest)
        _option_axis(axes, sorted({float(dict(series.options)[option]) for series in sweep}))
        words = option.removeprefix(f"{stage}.")
        axes.set_xlabel(f"{words} of {stage}")
        _metric_axis(axes, metric=facts.y, values=[s.values[facts.y] for s in at])
        title = f"{_sentence(facts.y)} against {short(option)}"
        return canvas.finish(
            axes,
            name=name,
            title=title,
            caption=f"Sweep of {words} at {images:,} images seen. The line joins the means, points are the seeds, the "
            "dashed level is the baseline at as many images.",
            alt=f"{title} of {stage} at {images:,} images seen; the numbers are in the table of every score",
            keys=keys,
        )


def _rest(series: Series, *, option: str) -> tuple[tuple[str, Any], ...]:
    return tuple(pair for pair in series.options if pair[0] != option)


def _option_axis(axes: Any, ticks: Sequence[float]) -> None:
    """Ticks at the swept values, as far as their words have room."""
    if ticks[0] > 0 and ticks[-1] / ticks[0] > 8:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    place = math.log if axes.get_xscale() == "log" else float
    apart = (place(ticks[-1]) - place(ticks[0])) / 9
    shown = ticks[:1]
    for tick in ticks[1:]:
        if place(tick) - place(shown[-1]) >= apart:
            shown = [*shown, tick]
    axes.set_xticks(shown, [plain(tick) for tick in shown])
    axes.margins(x=0.08)


def _draw_sweep(
    axes: Any, values: dict[Series, list[float]], *, facts: Facts, option: str, rest: Sequence[tuple[str, Any]]
) -> None:
    points = sorted(((float(dict(series.options)[option]), series) for series in values), key=lambda pair: pair[0])
    xs, means = [x for x, _ in points], [fmean(values[series]) for _, series in points]
    axes.plot(xs, means, color=theme.MUTED.light, linewidth=1.2, zorder=2)
    for x, series in points:
        style = canvas.style_of(list(facts.series).index(series))
        many = values[series]
        axes.scatter(
            [x] * len(many), many, color=style["color"], marker=style["marker"], s=34, zorder=3, label=series.label
        )
    if rest:
        words = " ".join(f"{short(name)}={plain(value)}" for name, value in rest)
        axes.annotate(words, (xs[-1], means[-1]), xytext=(6, 0), textcoords="offset points", fontsize=8, va="center")


def _draw_level(axes: Any, values: Sequence[float], *, facts: Facts, series: Series) -> Key:
    index = list(facts.series).index(series)
    colour = theme.colour_of(index).light
    label = f"{series.label} ({seed_words(len(values))})"
    axes.axhline(fmean(values), color=colour, linestyle="--", linewidth=1.5, label=label)
    if len(values) > 1:
        axes.axhspan(min(values), max(values), color=colour, alpha=0.15, linewidth=0)
    return Key(label, index, dashed=True)


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _sentence(metric: str) -> str:
    return _words(metric)[:1].upper() + _words(metric)[1:]


def _metric_axis(axes: Any, *, metric: str, values: Sequence[float]) -> None:
    axes.set_ylabel(f"{_words(metric)} ({'lower' if lower_is_better(metric) else 'higher'} is better)")
    if lower_is_better(metric):
        canvas.lower_is_better_axis(axes, values)
