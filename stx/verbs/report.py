"""`stx report`: writes the report over what is finished."""

import os
import sys

from stx.coordinator.prepare import writing
from stx.paths import Store
from stx.report import tables
from stx.report.facts import Facts
from stx.report.words import plural
from stx.verbs import columns, console
from stx.verbs.columns import Row
from stx.verbs.select import existing_store, one_experiment


def run(name: str, *, store: str | None, as_json: bool) -> None:
    """The verb `report`: writes report.md with its figures and report.html, prints both paths; scores go to stderr."""
    from stx.report.collect import collect
    from stx.report.write import write

    place: Store = existing_store(store)
    experiment = one_experiment(place, name)
    facts = collect(place, experiment)
    with writing(experiment.report):
        written = write(facts, experiment=experiment)
    if as_json:
        scores = [
            {
                "series": score.series.label,
                "run": score.run,
                "seed": score.seed,
                "scores_stage": score.judge,
                "images": score.images,
                "total_compute": score.compute,
                "hours": score.hours,
                "scores": dict(score.values),
                "protocol": dict(score.protocol),
            }
            for score in facts.scores
        ]
        paths = {"report": os.fspath(written.markdown), "html": os.fspath(written.html)}
        console.out_json({"experiment": name, **paths, "hours_unit": facts.hours_unit, "scores": scores})
        return
    if facts.scores:
        console.say(console.lines(last_scores(facts, width=console.width_of(sys.stderr)), stream=sys.stderr))
    finished = sum(stage.finished for stage in facts.stages)
    console.say(f"report over {finished} of {plural(len(facts.stages), 'stage')}:")
    console.out(os.fspath(written.markdown))
    console.out(os.fspath(written.html))


def last_scores(facts: Facts, *, width: int) -> list[Row]:
    """The table of scores for a terminal of `width` columns (0: no limit). Columns that do not fit are named below it;
    the report's own metric never goes.
    """
    table = tables.summary(facts, directions=False)
    others = tables.metrics(facts)[1:]
    drop = (facts.hours_unit, "seeds", "images seen", "total compute", *reversed(others))
    names = columns.fitting(table.header, table.rows, right=table.numeric, width=width, drop=drop)
    better: dict[str, list[str]] = {}
    for metric in tables.metrics(facts):
        if metric in names:
            better.setdefault(tables.direction(metric), []).append(metric)
    below = ["; ".join(f"{words}: {', '.join(of)}" for words, of in better.items())]
    left_out = [name for name in table.header if name not in names]
    if left_out:
        below.append(f"no room here, but in the report: {', '.join(left_out)}")
    shown = columns.table(table.header, table.rows, right=table.numeric, width=width, drop=drop)
    return [*shown, *(Row(line, "dim") for line in below)]
