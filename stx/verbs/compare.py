"""How two stages differ: options and, stage by stage down to the first cause, inputs. Pure.

Two stages are one where their keys are equal. Where they are not, some option of one of them differs, or some input's
key does, and then the same question is asked of the two inputs; each pair is answered once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stx.config.defaults import told
from stx.report.words import plain
from stx.spec import Graph, Input, Node
from stx.stages.base import kind_named


@dataclass(frozen=True)
class Side:
    """One of the two stages, and the images-seen count at which it is consumed (None: whole)."""

    name: str
    kind: str
    key: str
    images: int | None = None

    def __str__(self) -> str:
        at = f" at {self.images:,} images" if self.images is not None else ""
        return f"{self.name}{at} ({self.kind} {self.key[:8]})"


@dataclass(frozen=True)
class Changed:
    """One option, or whatever else has two values. None: it is not there."""

    path: str
    here: Any
    there: Any


@dataclass(frozen=True)
class Difference:
    """What differs between two stages. `name` is the option path under which a consumer names them, "" at the top.

    options   in the key            inputs   those whose keys or images-seen counts differ
    others    out of the key        shared   names of the inputs that are the same
    again     the pair was told of before, under another name
    """

    name: str
    here: Side | None
    there: Side | None
    options: Sequence[Changed] = ()
    inputs: Sequence["Difference"] = ()
    shared: Sequence[str] = ()
    others: Sequence[Changed] = ()
    again: bool = False

    @property
    def same(self) -> bool:
        """Whether they are one stage."""
        return self.here is not None and self.there is not None and self.here.key == self.there.key

    def dump(self) -> dict[str, Any]:
        """Its JSON."""
        return asdict(self)


def compare(here: Node, there: Node, *, graphs: tuple[Graph, Graph]) -> Difference:
    """The difference of two nodes, each of its own graph."""
    by_key = tuple({node.key: node for node in reversed(graph.nodes)} for graph in graphs)
    return _Comparison(by_key[0], by_key[1], set()).of(here, there, name="", images=(None, None))


@dataclass(frozen=True)
class _Comparison:
    here: Mapping[str, Node]
    there: Mapping[str, Node]
    told: set[tuple[str, str]]

    def of(self, here: Node, there: Node, *, name: str, images: tuple[int | None, int | None]) -> Difference:
        sides = _side(here, images[0]), _side(there, images[1])
        others = () if name else tuple(_others(here, there))
        if here.key == there.key:
            return Difference(name, *sides, others=others)
        if (here.key, there.key) in self.told:
            return Difference(name, *sides, again=True)
        self.told.add((here.key, there.key))
        if here.spec.kind != there.spec.kind:
            return Difference(name, *sides)
        names = dict.fromkeys([*here.spec.inputs, *there.spec.inputs])
        both = [(one, here.spec.inputs.get(one), there.spec.inputs.get(one)) for one in names]
        return Difference(
            name,
            *sides,
            options=tuple(_options(here, there)),
            inputs=tuple(self.input(one, mine, other) for one, mine, other in both if mine != other),
            shared=tuple(one for one, mine, other in both if mine == other),
            others=others,
        )

    def input(self, name: str, here: Input | None, there: Input | None) -> Difference:
        """The difference of what two stages consume under one name."""
        mine = self.here[here.key] if here else None
        other = self.there[there.key] if there else None
        if here and there and mine and other:
            return self.of(mine, other, name=name, images=(here.images, there.images))
        sides = _side(mine, here.images if here else None), _side(other, there.images if there else None)
        return Difference(name, *sides)


def _side(node: Node | None, images: int | None) -> Side | None:
    return Side(node.name, node.spec.kind, node.key, images) if node else None


def _options(here: Node, there: Node) -> list[Changed]:
    sides = [_values(node, node.spec.science, role="science") for node in (here, there)]
    recipes = [Changed("recipe", here.spec.recipe, there.spec.recipe)] if here.spec.recipe != there.spec.recipe else []
    return recipes + _changed(*sides)


def _others(here: Node, there: Node) -> list[Changed]:
    """What is wanted, and how it runs."""
    found = [Changed("wanted images seen", list(here.wants), list(there.wants))] if here.wants != there.wants else []
    if here.spec.kind != there.spec.kind:
        return found
    return found + _changed(*(_values(node, node.where, role="where") for node in (here, there)))


def _values(node: Node, values: Mapping[str, Any], *, role: str) -> dict[str, Any]:
    return {one.path: one.value for one in told(kind_named(node.spec.kind).options, values, role=role)}


def _changed(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[Changed]:
    paths = dict.fromkeys([*here, *there])
    return [
        Changed(path, here.get(path), there.get(path))
        for path in paths
        if (path in here) != (path in there) or here.get(path) != there.get(path)
    ]


def words(found: Difference) -> list[str]:
    """For people, inputs below the stage that consumes them."""
    if found.same:
        head = [f"{found.here} and {found.there} are one stage: their keys are equal"]
        return head + _table("out of the key", found.others)
    return [f"{found.here}  against  {found.there}", *_body(found, indent="  ")]


def _body(found: Difference, *, indent: str) -> list[str]:
    if found.here and found.there and found.here.kind != found.there.kind:
        return [f"{indent}they are of different kinds"]
    lines = [indent + line for line in _table("options", found.options)]
    for below in found.inputs:
        lines.append(f"{indent}{below.name}: {below.here or 'nothing'}  against  {below.there or 'nothing'}")
        if below.same:
            lines.append(f"{indent}  the same run at another milestone")
        elif below.again:
            lines.append(f"{indent}  they differ as told above")
        elif below.here and below.there:
            lines += _body(below, indent=f"{indent}  ")
    if found.shared:
        lines.append(f"{indent}the same: {', '.join(found.shared)}")
    return lines + [indent + line for line in _table("out of the key", found.others)]


def _table(title: str, changed: Sequence[Changed]) -> list[str]:
    if not changed:
        return []
    width = max(len(one.path) for one in changed)
    return [f"{title}:", *(f"  {one.path.ljust(width)}  {_value(one.here)} -> {_value(one.there)}" for one in changed)]


def _value(value: Any) -> str:
    return "-" if value is None else plain(value)
