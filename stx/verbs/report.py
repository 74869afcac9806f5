"""`stx report`: writes the report over what is finished."""

import os
import sys

from stx.coordinator.prepare import writing
from stx.paths import Store
from stx.report.words import plural
from stx.verbs import console
from stx.verbs.select import existing_store, one_experiment


def run(name: str, *, store: str | None, as_json: bool) -> None:
    """The verb `report`: writes report/report.md and its figures, prints the path; the scores go to stderr."""
    from stx.report import markdown, tables
    from stx.report.collect import collect

    place: Store = existing_store(store)
    experiment = one_experiment(place, name)
    facts = collect(place, experiment)
    with writing(experiment.report):
        path = markdown.write(facts, experiment=experiment)
    if as_json:
        scores = [
            {
                "series": score.series.label,
                "run": score.run,
                "seed": score.seed,
                "scores_stage": score.judge,
                "images": score.images,
                "total_compute": score.compute,
                "scores": dict(score.values),
                "protocol": dict(score.protocol),
            }
            for score in facts.scores
        ]
        console.out_json({"experiment": name, "report": str(path), "scores": scores})
        return
    if facts.scores:
        table = tables.summary(facts)
        console.say(console.table(table.header, table.rows, right=table.numeric, stream=sys.stderr))
    finished = sum(stage.finished for stage in facts.stages)
    console.say(f"report over {finished} of {plural(len(facts.stages), 'stage')}:")
    console.out(os.fspath(path))
