"""`stx report`: writes the report over what is finished."""

import os
import sys

from stx.coordinator.prepare import writing
from stx.paths import Store
from stx.report.words import plural
from stx.verbs import console
from stx.verbs.select import existing_store, one_experiment


def run(name: str, *, store: str | None, as_json: bool) -> None:
    """The verb `report`: writes report.md with its figures and report.html, prints both paths; scores go to stderr."""
    from stx.report import tables
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
        table = tables.summary(facts)
        console.say(console.table(table.header, table.rows, right=table.numeric, stream=sys.stderr))
    finished = sum(stage.finished for stage in facts.stages)
    console.say(f"report over {finished} of {plural(len(facts.stages), 'stage')}:")
    console.out(os.fspath(written.markdown))
    console.out(os.fspath(written.html))
