"""The report's figures: PNG bytes from facts. Light background, Okabe-Ito colours plus a marker per series, so that
neither colour-blindness nor grey paper hides who is who. Seeds are dots; where there are at least two, a line through
their mean and a band from the lowest to the highest.
"""

import io
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from stx.paths import LABELS, samples_file
from stx.report.claims import lower_is_better
from stx.report.collect import Curve, Facts, Samples, Score, Series, short
from stx.report.words import plain, scaled

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GRID_COLUMNS = 10
STYLE: Any = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "font.size": 10.5,
    "legend.frameon": False,
    "svg.hashsalt": "stx",
}
AXES = {
    "images_seen": "images seen",
    "total_compute": "total compute, FLOP (own training, and every run, teacher and cache it stands on)",
}


def score_figure(facts: Facts, *, x: str, judge: str) -> bytes | None:
    """The report's metric against images seen or total compute, one series per method."""
    scores = [score for score in facts.scores if score.judge == judge and facts.y in score.values]
    if not scores:
        return None
    figure, axes = _canvas()
    for series in facts.series:
        own = [score for score in scores if score.series == series]
        if own:
            _draw_series(axes, own, x=x, metric=facts.y, index=facts.series.index(series))
    _label(axes, x=AXES[x], metric=facts.y, values=[score.values[facts.y] for score in scores])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: scaled(value, "").strip()))
    axes.set_xlim(left=0)
    axes.legend(fontsize=9)
    return _png(figure)


def _draw_series(axes: Any, scores: Sequence[Score], *, x: str, metric: str, index: int) -> None:
    groups: dict[int, list[Score]] = {}
    for score in scores:
        groups.setdefault(score.images, []).append(score)
    places = {images: fmean(_place(score, x=x) for score in group) for images, group in sorted(groups.items())}
    values = {images: [score.values[metric] for score in groups[images]] for images in places}
    num_seeds = len({score.seed for score in scores})
    words = f"{num_seeds} seeds" if num_seeds > 1 else "one seed"
    style = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
    xs = list(places.values())
    axes.plot(
        xs,
        [fmean(v) for v in values.values()],
        **style,
        label=f"{scores[0].series.label} ({words})",
        linewidth=1.6,
        markersize=6,
    )
    if num_seeds > 1:
        low, high = [min(v) for v in values.values()], [max(v) for v in values.values()]
        axes.fill_between(xs, low, high, color=style["color"], alpha=0.18, linewidth=0)
        dots = [(places[images], value) for images, many in values.items() for value in many]
        axes.scatter(*zip(*dots, strict=True), color=style["color"], s=9, alpha=0.8, zorder=3)


def _place(score: Score, *, x: str) -> float:
    return float(score.images) if x == "images_seen" else score.compute


def swept_options(facts: Facts) -> list[tuple[str, str]]:
    """(stage, option) of the numeric options, other than seeds, that were swept over at least two values."""
    values: dict[tuple[str, str], set[float]] = {}
    for series in facts.series:
        for name, value in series.options:
            if isinstance(value, int | float) and not isinstance(value, bool):
                values.setdefault((series.stage, name), set()).add(float(value))
    return sorted(key for key, found in values.items() if len(found) > 1)


def sweep_figure(facts: Facts, *, stage: str, option: str, judge: str) -> bytes | None:
    """The metric against a swept option at the last milestone of the whole sweep, with the baseline as a level."""
    sweep = [series for series in facts.series if series.stage == stage and option in dict(series.options)]
    scores = [s for s in facts.scores if s.judge == judge and facts.y in s.values]
    counts = [{s.images for s in scores if s.series == series} for series in sweep]
    common = set.intersection(*counts) if counts else set()
    if not common:
        return None
    images = max(common)
    figure, axes = _canvas()
    at = [s for s in scores if s.images == images]
    _draw_level(
        axes, [s.values[facts.y] for s in at if s.series.stage == facts.baseline != stage], label=facts.baseline
    )
    rests = list(dict.fromkeys(_rest(series, option=option) for series in sweep))
    for index, rest in enumerate(rests):
        members = [series for series in sweep if _rest(series, option=option) == rest]
        points = {float(dict(m.options)[option]): [s.values[facts.y] for s in at if s.series == m] for m in members}
        _draw_sweep(
            axes, points, label=" ".join([stage, *(f"{short(n)}={plain(v)}" for n, v in rest)]), index=index + 1
        )
    ticks = sorted({float(dict(series.options)[option]) for series in sweep})
    if ticks[0] > 0 and ticks[-1] / ticks[0] > 8:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(ticks, [plain(tick) for tick in ticks])
    _label(
        axes,
        x=f"{option.removeprefix(stage + '.')} of {stage} (at {images:,} images seen)",
        metric=facts.y,
        values=[s.values[facts.y] for s in at],
    )
    axes.legend(fontsize=9)
    return _png(figure)


def _rest(series: Series, *, option: str) -> tuple[tuple[str, Any], ...]:
    return tuple(pair for pair in series.options if pair[0] != option)


def _draw_sweep(axes: Any, points: dict[float, list[float]], *, label: str, index: int) -> None:
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    xs = sorted(points)
    axes.plot(xs, [fmean(points[x]) for x in xs], color=colour, linewidth=1.6, label=f"{label} (mean)")
    dots = [(x, value) for x in xs for value in points[x]]
    axes.scatter(*zip(*dots, strict=True), color=colour, marker=marker, s=32, zorder=3, label=f"{label}, each seed")


def _draw_level(axes: Any, values: Sequence[float], *, label: str) -> None:
    if not values:
        return
    words = f"{len(values)} seeds" if len(values) > 1 else "one seed"
    axes.axhline(fmean(values), color=COLOURS[0], linestyle="--", linewidth=1.4, label=f"{label} ({words})")
    if len(values) > 1:
        axes.axhspan(min(values), max(values), color=COLOURS[0], alpha=0.15, linewidth=0)


def loss_figure(curves: Sequence[Curve], *, order: Sequence[Series]) -> bytes | None:
    """The diffusion term of the loss along each run's lineage."""
    drawn = [curve for curve in curves if curve.series in order and any("diffusion" in p.values for p in curve.points)]
    if not drawn:
        return None
    figure, axes = _canvas()
    labelled: set[Series] = set()
    values = []
    for curve in sorted(drawn, key=lambda one: order.index(one.series)):
        points = [(p.images, p.values["diffusion"]) for p in curve.points if "diffusion" in p.values]
        values += [value for _, value in points]
        label = None if curve.series in labelled else curve.series.label
        labelled.add(curve.series)
        index = order.index(curve.series)
        axes.plot(
            *zip(*points, strict=True), color=COLOURS[index % len(COLOURS)], linewidth=1.1, alpha=0.85, label=label
        )
    axes.set_xlabel("images seen")
    axes.set_ylabel("diffusion loss (velocity, mean square)")
    axes.set_ylim(top=float(np.quantile(values, 0.98)) * 1.05)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: scaled(value, "").strip()))
    axes.legend(fontsize=9)
    return _png(figure)


def sample_figure(samples: Sequence[Samples], *, class_names: Sequence[str], title: str) -> bytes:
    """One row per series, one column per sample index: the same index has the same noise and label in every row."""
    columns = _columns(samples[0])
    size = (0.85 * len(columns) + 2.2, 0.88 * len(samples) + 0.7)
    figure, grid = plt.subplots(len(samples), len(columns), figsize=size, squeeze=False, layout="constrained")
    for row, one in enumerate(samples):
        images = np.load(one.folder / samples_file(0), mmap_mode="r", allow_pickle=False)
        for column, (index, label) in enumerate(columns):
            axes = grid[row][column]
            image = np.asarray(images[index])
            axes.imshow(
                image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255, interpolation="nearest"
            )
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
            if row == 0:
                axes.set_title(class_names[label] if label < len(class_names) else str(label), fontsize=9)
        words = f"{one.series.label}\nseed {one.seed}"
        grid[row][0].set_ylabel(words, rotation=0, ha="right", va="center", fontsize=9, labelpad=6)
    figure.suptitle(title, fontsize=10)
    return _png(figure)


def _columns(one: Samples) -> list[tuple[int, int]]:
    """(index, label) of the samples shown, all from the first file: the first of each class, then the rest."""
    rows = len(np.load(one.folder / samples_file(0), mmap_mode="r", allow_pickle=False))
    labels = [int(label) for label in np.load(one.folder / LABELS, allow_pickle=False)[:rows]]
    first = {label: index for index, label in reversed(list(enumerate(labels)))}
    rest = [index for index in range(len(labels)) if index not in first.values()]
    chosen = [*(first[label] for label in sorted(first)), *rest][:GRID_COLUMNS]
    return [(index, labels[index]) for index in chosen]


def _canvas() -> tuple[Any, Any]:
    mpl.rcParams.update(STYLE)
    return plt.subplots(figsize=(7.6, 4.6))


def _label(axes: Any, *, x: str, metric: str, values: Sequence[float]) -> None:
    axes.set_xlabel(x, fontsize=9.5)
    axes.set_ylabel(f"{metric.replace('_', ' ')} ({'lower' if lower_is_better(metric) else 'higher'} is better)")
    if lower_is_better(metric) and min(values) > 0 and max(values) / min(values) > 8:
        axes.set_yscale("log")
        plain_ticks = FuncFormatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(plain_ticks)
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif lower_is_better(metric):
        axes.set_ylim(bottom=0, top=max(values) * 1.06)


def _png(figure: Any) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130, bbox_inches="tight")
    plt.close(figure)
    return stream.getvalue()
