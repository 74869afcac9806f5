"""The same experiment, as small as its kinds can make it: what `submit --smoke` runs before the real one.

Every kind says which of its options make it small (`smoke(options)` in stx/stages/KIND.py): two steps of training and
sampling, a few images of each class. Everything else stays: models, batches, alignments, layouts are the real ones. Of
a sweep the points that differ in more than their seed are kept, so that each model size and method is tried.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stx.config import yaml
from stx.config.load import NAME, Draft, Experiment, Point, overridden
from stx.errors import ConfigError
from stx.plan.drafts import ParsedStage, parse_stages

SUFFIX = "-smoke"
MOST_POINTS = 8
MARK = "# smoke of "


def smoke(experiment: Experiment) -> Experiment:
    """The small experiment NAME-smoke. Its options are not validated yet: whoever plans it does that."""
    name = experiment.name + SUFFIX
    if not NAME.fullmatch(name):
        what = f'the name "{experiment.name}" is too long: the smoke run would be called "{name}"'
        where = experiment.source.where(("name",), value=experiment.name)
        raise ConfigError(what, where=where, hint="a name has at most 64 letters, digits, - and _")
    stages = parse_stages(experiment)
    drafts = {stage: _small(stages[stage]) for stage in experiment.drafts}
    return replace(experiment, name=name, drafts=drafts, text=_text(experiment, name, drafts))


def is_smoke(text: str) -> bool:
    """Whether an experiment.yaml was written by us."""
    return text.startswith(MARK)


def _small(stage: ParsedStage) -> Draft:
    draft, overrides = stage.draft, stage.kind.smoke(stage.points[0].options)
    chosen: dict[str, Point] = {}
    for point in draft.points:
        kept = {path: value for path, value in point.values.items() if path not in overrides}
        apart = repr(sorted((path, repr(value)) for path, value in kept.items() if path != "seed"))
        chosen.setdefault(apart, Point(kept, {path: point.paths[path] for path in kept}))
    points = tuple(chosen.values())[:MOST_POINTS]
    return replace(draft, options=overridden(draft.options, overrides), points=points)


def _text(experiment: Experiment, name: str, drafts: Mapping[str, Draft]) -> str:
    stages = {stage: _written(draft) for stage, draft in drafts.items()}
    tree = {"name": name, "stages": stages} | ({"report": dict(experiment.report)} if experiment.report else {})
    return f"{MARK}{experiment.name} ({experiment.path.name})\n{yaml.dump(tree)}"


def _written(draft: Draft) -> dict[str, Any]:
    sweep = [dict(point.values) for point in draft.points if point.values]
    return {"kind": draft.kind, **draft.options} | ({"sweep": sweep} if sweep else {})
