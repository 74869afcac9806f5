"""Everything that the facts allow to be drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

from stx.report import curves, figures, pictures, stage_graph, tables
from stx.report.canvas import Chart
from stx.report.facts import Facts
from stx.report.pictures import Grid, Look


@dataclass(frozen=True)
class Drawn:
    """`scores` by judge; `grids` by sampling protocol, the newest milestone first."""

    scores: Sequence[tuple[str, Sequence[Chart]]]
    training: Sequence[Chart]
    probes: Sequence[Chart]
    grids: Sequence[Sequence[Grid]]
    looks: Sequence[Look]
    graph: stage_graph.Picture
    more_looks: int = 0  # inspect stages with other options, which are not shown

    @property
    def charts(self) -> list[Chart]:
        """All charts, in the order they are told."""
        return [*(chart for _, many in self.scores for chart in many), *self.training, *self.probes]

    def pngs(self) -> dict[str, bytes]:
        """The files beside report.md, by name."""
        found = {f"{chart.name}.png": chart.png for chart in self.charts if chart.png is not None}
        return found | {f"{grids[0].name}.png": pictures.grid_png(grids[0]) for grids in self.grids}


def draw(facts: Facts) -> Drawn:
    """Draw it all."""
    inspections = pictures.inspected(facts)
    return Drawn(
        scores=[
            (judge, _scores(facts, judge=judge, suffix="" if number == 0 else f"-{number + 1}"))
            for number, judge in enumerate(tables.judges(facts))
        ],
        training=curves.training_charts(facts),
        probes=curves.probe_charts(facts, inspections),
        grids=pictures.sample_grids(facts),
        looks=pictures.looks(facts, inspections),
        graph=stage_graph.folded(facts),
        more_looks=max(0, len({one.protocol_key for one in facts.inspections}) - 1),
    )


def _scores(facts: Facts, *, judge: str, suffix: str) -> list[Chart]:
    charts = [figures.score_chart(facts, x=x, judge=judge, name=f"score-{x}{suffix}") for x in facts.x]
    for stage, option in figures.swept_options(facts):
        name = f"sweep-{stage}-{option.removeprefix(stage + '.').replace('.', '_')}{suffix}"
        charts.append(figures.sweep_chart(facts, stage=stage, option=option, judge=judge, name=name))
    return [chart for chart in charts if chart is not None]
