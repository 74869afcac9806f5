"""An experiment becomes a graph of keyed stages: sweeps fanned out, inputs joined, everything arithmetic checked.

Pure: reads no store. Names: `phase2:guidance=5,seed=0`, with the points of ancestors as `teacher:phase1.seed=0`, and
for what a fan-out made, the run: `samples:phase2:guidance=5,seed=0`.
"""

import contextlib
import gc
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stx.config import schema
from stx.config.cluster import Cluster
from stx.config.load import Experiment, Point
from stx.config.schema import OptionsError, Problem
from stx.errors import PlanError
from stx.plan import drafts
from stx.plan.drafts import Parsed, ParsedStage
from stx.plan.join import MAX_ROWS, Coordinates, Row, TooManyRows, natural_join
from stx.spec import Cost, Graph, Input, Node, StageSpec
from stx.stages.base import Bound, LayoutError


@dataclass(frozen=True)
class Place:
    """Where a node is among the sweeps.

    branches   the run node(s) that a fan-out above it chose; `covered` are the sweeps which their names already tell
    sweeps     the label of each swept stage it descends from, by stage; inherited: the values, by stage and option path
    """

    name: str
    coordinates: Coordinates
    branches: tuple[str, ...]
    covered: frozenset[str]
    sweeps: Mapping[str, str]
    inherited: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Made:
    """A planned stage on its way to a node."""

    stage: str
    spec: StageSpec
    bound: Bound
    place: Place
    own: Mapping[str, Any]
    where: Mapping[str, Any]
    cost: Cost

    @property
    def coordinates(self) -> Coordinates:
        """What it is joined by."""
        return self.place.coordinates


def expand(experiment: Experiment, cluster: Cluster) -> Graph:
    """The graph of an experiment on a cluster. ConfigError (or PlanError) for all that can be known to be wrong."""
    with _uncollected():
        stages = drafts.parse_stages(experiment)
        report = drafts.report_of(experiment, stages)
        made: dict[str, list[Made]] = {}
        for name, stage in stages.items():
            made[name] = list(itertools.islice(_expanded(stage, made), MAX_ROWS + 1))
            if sum(map(len, made.values())) > MAX_ROWS:
                what = f"with it the experiment has more than {MAX_ROWS:,} stages, which is the limit"
                raise drafts.refused(stage.draft, stage.points[0].point, Problem((), what))
            _check_layouts(stage, made[name], cluster)
        return Graph(experiment=experiment.name, nodes=tuple(_nodes(made)), report=report)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """A sweep makes a million small objects and no cycle: walking them again and again is a third of a plan's time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _expanded(stage: ParsedStage, made: Mapping[str, Sequence[Made]]) -> Iterator[Made]:
    """The nodes of one stage. Rows depend on the names a point uses, prices on all but the seed: each is made once."""
    rows: dict[Any, list[Row[Made]]] = {}
    priced: dict[Any, _Priced] = {}
    for index, parsed in enumerate(stage.points):
        uses = (tuple(parsed.named.items()), parsed.fans)
        if uses not in rows:
            rows[uses] = _rows(stage, parsed, made)
        apart = tuple((path, repr(value)) for path, value in parsed.swept.items() if path != "seed")
        for number, row in enumerate(rows[uses]):
            price = priced.get((uses, number, apart))
            if price is None:
                price = priced[uses, number, apart] = _price(stage, parsed, row)
            yield _make(stage, parsed, price, place=_place(stage, parsed, index=index, row=row))


def _rows(stage: ParsedStage, parsed: Parsed, made: Mapping[str, Sequence[Made]]) -> list[Row[Made]]:
    try:
        rows = _joined(stage, parsed, made)
    except TooManyRows as error:
        what = f"the sweeps behind it cross to more than {MAX_ROWS:,} stages, which is the limit"
        raise drafts.refused(stage.draft, parsed.point, Problem((), what)) from error
    if not rows:
        used = ", ".join(parsed.named.values())
        raise drafts.refused(
            stage.draft, parsed.point, Problem((), f"{used}: no sweep point is common to these inputs")
        )
    return rows


def _joined(stage: ParsedStage, parsed: Parsed, made: Mapping[str, Sequence[Made]]) -> list[Row[Made]]:
    relations = {path: made[name] for path, name in parsed.named.items()}
    if not parsed.fans:
        return natural_join(relations)
    rows: list[Row[Made]] = []
    for singular, run in parsed.fans:
        found = natural_join({singular: made[run], **relations})
        fan = f"{stage.draft.name}/{singular}"
        rows += [Row({**row.coordinates, fan: run}, row.items) for row in found]
    return rows


@dataclass(frozen=True)
class _Priced:
    """What is equal for all seeds of a stage: no check, fact or cost looks at the seed."""

    bound: Mapping[str, Bound]
    inputs: Mapping[str, Input]
    wants: tuple[int, ...]
    where: Mapping[str, Any]
    cost: Cost


def _price(stage: ParsedStage, parsed: Parsed, row: Row[Made]) -> _Priced:
    kind, options = stage.kind, parsed.options
    bound = {path: item.bound for path, item in row.items.items()}
    bound |= kind.derived(bound)
    problems = kind.check(options, bound)
    if problems:
        raise OptionsError([drafts.refused(stage.draft, parsed.point, problem) for problem in problems])
    wants, consumed = kind.wants(options, bound), kind.results(options, bound)
    return _Priced(
        bound=bound,
        inputs={path: Input(source.kind, source.key, consumed.get(path)) for path, source in bound.items()},
        wants=wants,
        where={**schema.where_of(options), **kind.facts(options, bound)},
        cost=kind.cost(options, bound, wants),
    )


def _make(stage: ParsedStage, parsed: Parsed, price: _Priced, *, place: Place) -> Made:
    kind, options = stage.kind, parsed.options
    spec = StageSpec(kind=kind.name, recipe=kind.recipe, science=parsed.science, inputs=price.inputs)
    return Made(
        stage=stage.draft.name,
        spec=spec,
        bound=Bound(place.name, kind.name, spec.key, options, price.bound, price.wants),
        place=place,
        own=parsed.swept,
        where=price.where,
        cost=price.cost,
    )


def _place(stage: ParsedStage, parsed: Parsed, *, index: int, row: Row[Made]) -> Place:
    own, places = stage.draft.name, [item.place for item in row.items.values()]
    sweeps = {swept: text for place in places for swept, text in place.sweeps.items()}
    inherited: dict[str, Any] = {}
    for item in row.items.values():
        inherited |= item.place.inherited
        inherited |= {f"{item.stage}.{path}": value for path, value in item.own.items()}
    branches = tuple(dict.fromkeys(branch for place in places for branch in place.branches))
    covered = frozenset(swept for place in places for swept in place.covered)
    if parsed.fans:
        run = places[0]
        branches, covered = (run.name,), covered | run.sweeps.keys()
    parts = [text for swept, text in sweeps.items() if swept not in covered]
    coordinates = row.coordinates
    if parsed.label:
        parts.append(parsed.label)
        coordinates = {**coordinates, own: index}
        sweeps[own] = ",".join(f"{own}.{text}" for text in parsed.labels)
    name = ":".join([own, "+".join(branches)] if branches else [own])
    return Place(
        name=f"{name}:{','.join(parts)}" if parts else name,
        coordinates=coordinates,
        branches=branches,
        covered=covered,
        sweeps=sweeps,
        inherited=inherited,
    )


def _check_layouts(stage: ParsedStage, made: Sequence[Made], cluster: Cluster) -> None:
    """Every distinct batch and precision fits every layout of the cluster file."""
    seen: set[Any] = set()
    for item, parsed in _with_points(stage, made):
        asked = tuple(item.spec.science.get(name) for name in ("global_batch", "precision"))
        if asked in seen:
            continue
        seen.add(asked)
        try:
            stage.kind.layouts(Node(item.place.name, item.stage, item.spec), cluster)
        except LayoutError as error:
            raise _misfit(error, stage, parsed.point, cluster) from None


def _misfit(error: LayoutError, stage: ParsedStage, point: Point, cluster: Cluster) -> OptionsError:
    """Every entry of the cluster file that does not fit, each at its place, with the place of what it does not fit."""
    option = drafts.refused(stage.draft, point, Problem((error.option,), "")).where
    return OptionsError(
        [
            PlanError(f"{fault.what} ({option})", where=cluster.place(stage.kind.name, fault.path), hint=fault.hint)
            for fault in error.faults
        ]
    )


def _with_points(stage: ParsedStage, made: Sequence[Made]) -> Iterator[tuple[Made, Parsed]]:
    for item in made:
        yield item, stage.points[int(item.coordinates.get(item.stage, 0))]


def _nodes(made: Mapping[str, Sequence[Made]]) -> list[Node]:
    """Nodes with their priority: the FLOPs of the longest chain of work that starts with them."""
    behind: dict[str, float] = {}
    nodes: list[Node] = []
    for item in reversed([item for items in made.values() for item in items]):
        # 1.0 a stage, so that of stages without a known cost the longer chain goes first
        chain = behind.get(item.spec.key, 0.0) + item.cost.flops + 1.0
        for source in item.spec.inputs.values():
            behind[source.key] = max(behind.get(source.key, 0.0), chain)
        nodes.append(
            Node(
                name=item.place.name,
                stage=item.stage,
                spec=item.spec,
                wants=item.bound.wants,
                where=item.where,
                point={**item.own, **item.place.inherited},
                cost=item.cost,
                priority=chain,
            )
        )
    nodes.reverse()
    return nodes
