"""Charts of training: what each run logged along its lineage, and what a linear probe reads out of its blocks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stx.report import canvas, theme
from stx.report.canvas import Chart, Key
from stx.report.facts import Curve, Facts, Inspection, Series
from stx.report.history import Point
from stx.report.words import plural


@dataclass(frozen=True)
class Quantity:
    """One logged number, or a sum of some: what its chart is called, and how a line's value is found. The page shows
    all, report.md those that are not `only_page`.
    """

    name: str
    title: str
    label: str
    caption: str
    value: Callable[[Point], float | None]
    only_page: bool = False


def _alignment(point: Point) -> float | None:
    terms = [value for name, value in point.values.items() if name.startswith("alignment.")]
    return sum(terms) if terms else None


QUANTITIES = (
    Quantity(
        "losses",
        "Diffusion loss",
        "diffusion loss (mean square of velocity)",
        "The diffusion term alone, so that methods compare; its weight is 1 in all.",
        lambda point: point.values.get("diffusion"),
    ),
    Quantity(
        "grad_norms",
        "Gradient norm",
        "gradient norm before clipping",
        "The norm over all parameters before clipping.",
        lambda point: point.values.get("grad_norm"),
    ),
    Quantity(
        "alignment_losses",
        "Alignment loss",
        "alignment loss, weighted",
        "All alignment terms of a run, already weighted; each method has its own scale.",
        _alignment,
        only_page=True,
    ),
    Quantity(
        "images_per_s",
        "Training speed",
        "images per second",
        "While training: saving and publishing are left out.",
        lambda point: point.values.get("images_per_s"),
        only_page=True,
    ),
)
LINEAGE = "One line a seed, along the lineage: what a lost attempt logged beyond its last checkpoint is not in it."


def training_charts(facts: Facts) -> list[Chart]:
    """The charts of what was logged, of those series that have scores (or of all, while there are none)."""
    order = list(facts.series) or list(dict.fromkeys(curve.series for curve in facts.curves))
    drawn = (_curves(quantity, facts.curves, order=order) for quantity in QUANTITIES)
    return [chart for chart in drawn if chart is not None]


def _curves(quantity: Quantity, curves: Sequence[Curve], *, order: Sequence[Series]) -> Chart | None:
    lines = [(curve, _points(curve, quantity)) for curve in curves if curve.series in order]
    lines = sorted(((c, points) for c, points in lines if points), key=lambda pair: order.index(pair[0].series))
    if not lines:
        return None
    with canvas.axes() as axes:
        keys: dict[Series, Key] = {}
        for curve, points in lines:
            index = order.index(curve.series)
            style = canvas.style_of(index) | {"marker": ""}
            label = None if curve.series in keys else curve.series.label
            keys.setdefault(curve.series, Key(curve.series.label, index))
            axes.plot(*zip(*points, strict=True), **style, linewidth=1.2, alpha=0.85, label=label)
        axes.set_xlabel("images seen")
        axes.set_ylabel(quantity.label)
        canvas.count_axis(axes)
        _cut_outliers(axes, [value for _, points in lines for _, value in points])
        return canvas.finish(
            axes,
            name=quantity.name,
            title=quantity.title,
            caption=f"{quantity.caption} {LINEAGE}",
            alt=f"{quantity.title} of {plural(len(lines), 'run')} against images seen",
            keys=list(keys.values()),
            only_page=quantity.only_page,
        )


def _points(curve: Curve, quantity: Quantity) -> list[tuple[int, float]]:
    found = ((point.images, quantity.value(point)) for point in curve.points)
    return [(images, value) for images, value in found if value is not None]


def _cut_outliers(axes: Any, values: Sequence[float]) -> None:
    """The first steps must not flatten the rest."""
    high, top = float(np.quantile(values, 0.98)), max(values)
    if top > 1.5 * high > 0:
        axes.set_ylim(top=1.1 * high)


def probe_charts(facts: Facts, inspections: Sequence[Inspection]) -> list[Chart]:
    """Probe accuracy against the block, one chart a time t, one line a series (all of one protocol)."""
    if not inspections:
        return []
    times = inspections[0].info["times"]
    return [_probe(facts, inspections, index=index, t=t) for index, t in enumerate(times)]


def _probe(facts: Facts, inspections: Sequence[Inspection], *, index: int, t: float) -> Chart:
    with canvas.axes() as axes:
        keys = []
        for number, one in enumerate(inspections):
            place = facts.place(one.series, otherwise=len(facts.series) + number)
            blocks, accuracy = one.info["blocks"], one.probes()[index]
            axes.plot(blocks, accuracy, **canvas.style_of(place), label=one.label)
            keys.append(Key(one.label, place))
        names = inspections[0].info.get("class_names") or ()
        if names:
            axes.axhline(1 / len(names), color=theme.MUTED.light, linestyle=":", linewidth=1.2)
        axes.set_xlabel("block")
        axes.set_ylabel("probe accuracy (higher is better)")
        axes.set_ylim(0, 1.02)
        blocks = inspections[0].info["blocks"]
        axes.set_xticks(blocks if len(blocks) <= 12 else blocks[:: -(-len(blocks) // 12)])
        return canvas.finish(
            axes,
            name=f"probes-{index + 1}",
            title=f"Linear probe at t = {t:g}",
            caption="Dotted: chance." if names else "",
            alt=f"Accuracy of a linear probe per block at t = {t:g} for {plural(len(inspections), 'run')}",
            keys=keys,
            only_page=True,
        )
