"""Drafts become validated options: one for each sweep point, with the stages they name checked and put in order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from stx import named
from stx.config import schema
from stx.config.cluster import Layout, StageResources
from stx.config.load import Draft, Experiment, Point, value_at
from stx.config.report import ReportOptions
from stx.config.schema import OptionsError, Problem, StageOptions
from stx.config.yaml import flow
from stx.errors import ConfigError, PlanError
from stx.stages import base
from stx.stages.evaluate import METRICS


@dataclass(frozen=True)
class Parsed:
    """One sweep point: its options, the swept values with the stage's own filled in, and the inputs it names."""

    point: Point
    options: StageOptions
    swept: Mapping[str, Any]
    named: Mapping[str, str]
    fans: tuple[tuple[str, str], ...]

    @cached_property
    def science(self) -> dict[str, Any]:
        """What is hashed of the options; all nodes of a fan-out share it."""
        return schema.science_of(self.options)

    @cached_property
    def labels(self) -> list[str]:
        """`guidance=5`, `seed=0`: the last word of each option path where that is unambiguous."""
        return [f"{name}={shown(value)}" for name, value in zip(short(self.swept), self.swept.values(), strict=True)]

    @cached_property
    def label(self) -> str:
        """`guidance=5,seed=0`, or nothing where there is no sweep."""
        return ",".join(self.labels)


@dataclass(frozen=True)
class ParsedStage:
    """A stage with all its sweep points."""

    draft: Draft
    kind: base.Kind
    points: Sequence[Parsed] = field(default_factory=tuple)

    @property
    def upstream(self) -> tuple[str, ...]:
        """The stages it names at any point."""
        found = [name for point in self.points for name in (*point.named.values(), *(run for _, run in point.fans))]
        return tuple(dict.fromkeys(found))


def shown(value: Any) -> str:
    """A swept value in a name: 5.0 is 5."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return flow(value).replace(" ", "")


def short(paths: Mapping[str, Any]) -> list[str]:
    """The last word of each option path, or the whole path where two end alike."""
    last = [path.rsplit(".", 1)[-1] for path in paths]
    return [word if last.count(word) == 1 else path for word, path in zip(last, paths, strict=True)]


def parse_stages(experiment: Experiment) -> dict[str, ParsedStage]:
    """All stages, validated one by one and by the names they use, in topological order. Reports all that are wrong."""
    errors: list[ConfigError] = _default_errors(experiment)
    parsed: dict[str, ParsedStage] = {}
    for draft in experiment.drafts.values():
        try:
            parsed[draft.name] = _parse(draft, experiment)
        except OptionsError as error:
            errors += error.errors
        except ConfigError as error:
            errors.append(error)
    if errors:
        raise OptionsError(errors)
    return {name: parsed[name] for name in _in_order(parsed)}


def report_of(experiment: Experiment, stages: Mapping[str, ParsedStage]) -> dict[str, Any]:
    """The report's options, with the series it compares."""
    options = schema.validate(ReportOptions, experiment.report)
    if isinstance(options, list):
        found = options
    else:
        runs = [run for stage in stages.values() for point in stage.points for _, run in point.fans]
        series = list(options.series or dict.fromkeys(runs))
        found = _report_problems(options, stages)
        if not found:
            return {"y": options.y, "x": list(options.x), "series": series}
    raise OptionsError([experiment.source.error(("report", *p.path), p.what, hint=p.hint) for p in found])


def _report_problems(options: ReportOptions, stages: Mapping[str, ParsedStage]) -> list[Problem]:
    found = []
    trained = [name for name, stage in stages.items() if stage.kind.name == "train"]
    for number, name in enumerate(options.series):
        if name not in trained:
            error = named.unknown(name, trained, what="no train stage of that name")
            found.append(Problem(("series", number), error.what, error.hint))
    scores = [score for names in METRICS.values() for score in names]
    if options.y not in scores:
        error = named.unknown(options.y, scores, what="no such score")
        found.append(Problem(("y",), error.what, error.hint))
    return found


def _default_errors(experiment: Experiment) -> list[ConfigError]:
    errors, used = [], {draft.kind for draft in experiment.drafts.values()}
    for kind, options in experiment.defaults.items():
        known = named.names(base.PACKAGE)
        if kind not in known:
            error = named.unknown(kind, known, what=f'"{kind}" is no stage kind')
            errors.append(experiment.source.error(("defaults", kind), error.what, hint=error.hint))
        elif kind not in used:
            fields = sorted(base.kind_named(kind).options.model_fields)
            for name in options:
                if name not in fields:
                    error = named.unknown(name, fields, what="no such option here")
                    problem = _of_cluster(Problem((name,), error.what, error.hint), base.kind_named(kind))
                    errors.append(experiment.source.error(("defaults", kind, name), problem.what, hint=problem.hint))
    return errors


def _parse(draft: Draft, experiment: Experiment) -> ParsedStage:
    known = named.names(base.PACKAGE)
    if draft.kind not in known:
        error = named.unknown(draft.kind, known, what=f"no file stx/stages/{draft.kind}.py")
        raise draft.source.error(("stages", draft.name, "kind"), error.what, hint=error.hint)
    stage = ParsedStage(draft=draft, kind=base.kind_named(draft.kind))
    points = []
    checked: set[tuple[tuple[str, str], ...]] = set()
    for point in draft.points:
        options = schema.validate(stage.kind.options, draft.merged(point), folder=experiment.path.parent)
        if isinstance(options, list):
            raise OptionsError([refused(draft, point, _of_cluster(problem, stage.kind)) for problem in options])
        parsed = _named(draft, point, options)
        uses = (*parsed.named.items(), *parsed.fans)
        if uses not in checked:
            checked.add(uses)
            _check_names(draft, parsed, experiment)
        points.append(parsed)
    _check_unique(draft, points)
    return ParsedStage(draft=draft, kind=stage.kind, points=points)


def _of_cluster(problem: Problem, kind: base.Kind) -> Problem:
    """The same, unless it is about an option of the cluster file: then that is what is wrong."""
    name = str(problem.path[0]) if len(problem.path) == 1 else ""
    if name in kind.options.model_fields or name not in {**StageResources.model_fields, **Layout.model_fields}:
        return problem
    inner = f"{name}: ..." if name in StageResources.model_fields else f"layouts: [{{{name}: ...}}]"
    what = "belongs to the cluster file, which says how stages run (no key depends on it)"
    return Problem(problem.path, what, f"give it in the file of --cluster, as stages: {{{kind.name}: {{{inner}}}}}")


def refused(draft: Draft, point: Point, problem: Problem) -> ConfigError:
    """The error of one option at one sweep point, with its place."""
    path = problem.path
    value = value_at(draft.merged(point), path)
    where = draft.where(path, point=point, value=value, shown=not isinstance(value, Mapping))
    return PlanError(problem.what, where=where, hint=problem.hint)


def _named(draft: Draft, point: Point, options: StageOptions) -> Parsed:
    swept = {path: _value_at(options, path) for path in draft.swept} if point.values else {}
    fan = schema.fan_of(options)
    return Parsed(
        point=point,
        options=options,
        swept={path: value for path, value in swept.items() if value is not _ABSENT},
        named={path: name for path, (name, _) in schema.inputs_of(options).items()},
        fans=tuple((fan[0].singular, run) for run in fan[1]) if fan else (),
    )


_ABSENT: Any = object()


def _value_at(options: StageOptions, path: str) -> Any:
    # Another point may sweep an option that this point's method does not have.
    try:
        return schema.value_at(options, path)
    except (AttributeError, KeyError):
        return _ABSENT


def _check_names(draft: Draft, parsed: Parsed, experiment: Experiment) -> None:
    for path, (name, kinds) in schema.inputs_of(parsed.options).items():
        _check_name(draft, parsed, experiment, path=tuple(path.split(".")), name=name, kinds=kinds)
    fan = schema.fan_of(parsed.options)
    if fan is None:
        return
    mark, names = fan
    for number, name in enumerate(names):
        _check_name(draft, parsed, experiment, path=(mark.name, number), name=name, kinds=mark.kinds)
        if names.index(name) < number:
            raise refused(draft, parsed.point, Problem((mark.name, number), "is named twice"))


def _check_name(
    draft: Draft,
    parsed: Parsed,
    experiment: Experiment,
    *,
    path: tuple[str | int, ...],
    name: str,
    kinds: tuple[str, ...],
) -> None:
    fitting = [other.name for other in experiment.drafts.values() if not kinds or other.kind in kinds]
    other = experiment.drafts.get(name)
    if name in fitting or (other is not None and other.kind not in named.names(base.PACKAGE)):
        return  # an unknown kind is an error of its own
    if other is not None:
        what = f'expects a stage of kind {" or ".join(kinds)}, "{name}" is of kind {other.kind}'
    else:
        what = f'no stage "{name}"'
    hint = named.unknown(name, fitting, what=what).hint if fitting else f"add a stage of kind {' or '.join(kinds)}"
    raise refused(draft, parsed.point, Problem(path, what, hint))


def _check_unique(draft: Draft, points: Sequence[Parsed]) -> None:
    seen: set[str] = set()
    for parsed in points:
        if parsed.label in seen:
            what = f"two points are {parsed.label}" if parsed.label else "two points with one name"
            where = draft.source.where(("stages", draft.name, "sweep"), shown=False)
            raise PlanError(what, where=where, hint="a point that leaves an option out has the stage's own value")
        seen.add(parsed.label)


def _in_order(stages: Mapping[str, ParsedStage]) -> list[str]:
    """Inputs before their consumers, otherwise as in the file. A cycle is an error that draws it."""
    order: list[str] = []
    for root in stages:
        path: list[str] = []
        todo = [(root, False)]
        while todo:
            name, leaving = todo.pop()
            if leaving:
                order.append(path.pop())
            elif name in path:
                cycle = " -> ".join([*path[path.index(name) :], name])
                source = stages[name].draft.source
                raise source.error(
                    ("stages", name),
                    f"a cycle of stages: {cycle}",
                    hint="an arrow reads `needs`; take one of them away",
                )
            elif name not in order:
                path.append(name)
                todo.append((name, True))
                todo += [(other, False) for other in reversed(stages[name].upstream)]
    return order
