"""The experiment file: read, extended, overridden, merged with defaults, and cut into one draft per stage.

    extends: other.yaml   a file with the same shape below this one (one level): mappings merge, the rest is replaced
    --set a.b=c           replaces one value; c is read as YAML
    defaults: {kind: {}}  options merged under every stage of that kind
    sweep                 a list of points | a mapping of lists (grid) | {zip: a mapping of equally long lists}

Nothing is validated here but the shape: what options a kind has is the business of stx/stages/KIND.py, and stx/plan
puts both together. A draft knows where every value of it stands, so that whoever refuses a value can say so.
"""

import difflib
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any

from jobs import files
from stx import named
from stx.config import yaml
from stx.config.yaml import Path, dotted, flow
from stx.errors import ConfigError

YAML_BYTES = 2 << 20  # a sweep of 10,000 points, one a line, has 1 MB
MAX_POINTS = 100_000
_FEWER = "give the points that you mean as a list, or lists that belong together under zip"
SECTIONS = ("name", "extends", "defaults", "stages", "report")
NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_OPTION = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")


@dataclass(frozen=True)
class Point:
    """One point of a sweep: values by dotted option path, and where each of them stands in the file."""

    values: Mapping[str, Any] = field(default_factory=dict)
    paths: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """All values of an experiment as one tree, and the place (`file:31` or `--set`) of each of them."""

    tree: Mapping[str, Any]
    places: Mapping[Path, str]
    file: str

    def where(self, path: Path, *, value: Any = None, shown: bool = True) -> str:
        """`file:31: stages.a.b = 3`; for a path that is not in the file, the line of what is around it."""
        place = next((self.places[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.places), self.file)
        text = dotted(path)
        equals = f"={flow(value)}" if place == "--set" else f" = {flow(value)}"
        if not shown:
            equals = ""
        separator = " " if place == "--set" else ": " if text else ""
        return f"{place}{separator}{text}{_short(equals)}"

    def error(self, path: Path, what: str, *, hint: str | None = None) -> ConfigError:
        """An error at a path of the tree."""
        value = value_at(self.tree, path)
        return ConfigError(what, where=self.where(path, value=value, shown=_is_leaf(value)), hint=hint)


@dataclass(frozen=True)
class Draft:
    """A stage as written: its kind, its options with the defaults merged in (no kind, no sweep), its sweep points."""

    name: str
    kind: str
    options: Mapping[str, Any]
    points: tuple[Point, ...]
    source: Source
    roots: tuple[Path, ...]

    @cached_property
    def swept(self) -> tuple[str, ...]:
        """The option paths that any point sets, sorted: names of points do not depend on how a sweep is written."""
        return tuple(sorted({path for point in self.points for path in point.values}))

    def where(self, path: Path, *, point: Point, value: Any, shown: bool = True) -> str:
        """The place of one option's value at one sweep point."""
        for swept, place in point.paths.items():
            parts = tuple(swept.split("."))
            if parts == path[: len(parts)]:
                return self.source.where(place + path[len(parts) :], value=value, shown=shown)
        through = not isinstance(value_at(self.options, path), Mapping)  # a sweep reaches below what is no mapping
        for root in self.roots:
            if root + path in self.source.places and not (through and self._swept_below(path)):
                return self.source.where(root + path, value=value, shown=shown)
        for swept, place in point.paths.items():
            if tuple(swept.split("."))[: len(path)] == path:  # a mapping that only this sweep speaks of
                return self.source.where(place, value=point.values[swept])
        for length in range(len(path) - 1, 0, -1):
            for root in self.roots:
                if root + path[:length] in self.source.places:
                    return self.source.where(root + path, value=value, shown=shown)
        return self.source.where(self.roots[0] + path, value=value, shown=shown)

    def _swept_below(self, path: Path) -> bool:
        return any(tuple(swept.split("."))[: len(path)] == path for swept in self.swept)

    def merged(self, point: Point) -> Mapping[str, Any]:
        """The options at a sweep point."""
        return overridden(self.options, point.values) if point.values else self.options


@dataclass(frozen=True)
class Experiment:
    """An experiment file. `text` is self-contained: the file as it is, or resolved if it extends another or was set."""

    name: str
    drafts: Mapping[str, Draft]
    report: Mapping[str, Any]
    path: FilePath
    text: str
    source: Source

    def where(self, stage: str, option: str, *, values: Mapping[str, Any]) -> str:
        """The place of an option (a dotted path) of a stage, at the sweep point that has these values."""
        draft, path = self.drafts[stage], tuple(option.split("."))
        point = next((one for one in draft.points if one.values.items() <= values.items()), draft.points[0])
        value = value_at(draft.merged(point), path)
        return draft.where(path, point=point, value=value, shown=_is_leaf(value))

    @property
    def defaults(self) -> Mapping[str, Mapping[str, Any]]:
        """The options given per kind."""
        defaults: Mapping[str, Mapping[str, Any]] = self.source.tree.get("defaults") or {}
        return defaults


def load_experiment(path: FilePath, *, sets: Sequence[str] = ()) -> Experiment:
    """Read an experiment file; ConfigError says file, line, field, value and what to do."""
    text, source = _read(path)
    extends = source.tree.get("extends")
    if extends is not None:
        source = _extended(source, path=path, extends=extends)
    for assignment in sets:
        source = _set(source, assignment)
    _check_shape(source)
    if extends is not None or sets:
        resolved = {key: value for key, value in source.tree.items() if key != "extends"}
        text = f"# {path.name}, resolved" + "".join(f" --set {item}" for item in sets) + "\n" + yaml.dump(resolved)
    return Experiment(
        name=source.tree["name"],
        drafts={name: _draft(source, name) for name in source.tree["stages"]},
        report=source.tree.get("report") or {},
        path=path,
        text=text,
        source=source,
    )


def read_document(path: FilePath, *, where: str | None = None) -> tuple[str, yaml.Document]:
    """The text and the parsed content of a file that a user named (at `where`, if in another file)."""
    where = where or str(path)
    try:
        if path.is_dir():
            raise ConfigError(f"{path} is a directory, not a file", where=where, hint=_files_in(path))
        data = files.read(path.resolve(), limit=YAML_BYTES)  # a link that a user made is his business
        if data is None:
            raise ConfigError(f"no such file: {path}", where=where, hint=_files_near(path))
        text = data.decode().replace("\r\n", "\n")
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not UTF-8 text ({error})"
        raise ConfigError(f"{path} cannot be read: {reason}", where=where, hint="a YAML text file is wanted") from error
    return text, yaml.parse(text, file=str(path))


def _files_near(path: FilePath) -> str:
    near = difflib.get_close_matches(path.stem, [one.stem for one in path.parent.glob("*.yaml")], n=1)
    return f'did you mean "{path.parent / near[0]}.yaml"?' if near else _files_in(path.parent)


def _files_in(folder: FilePath) -> str:
    names = sorted(str(one) for one in folder.glob("*.yaml") if one.is_file())
    return f"there are: {', '.join(names[:8])}" if names else f"no .yaml file is in {folder.absolute()}"


def _read(path: FilePath, *, where: str | None = None) -> tuple[str, Source]:
    text, document = read_document(path, where=where)
    if not isinstance(document.value, Mapping):
        what = "the file is empty" if document.value is None else "an experiment file is a mapping, this is not"
        hint = f"it has {', '.join(SECTIONS)}; configs/quickstart.yaml is a complete one"
        raise ConfigError(what, where=str(path), hint=hint)
    places = {place: f"{path}:{line}" for place, line in document.lines.items()}
    return text, Source(tree=document.value, places=places, file=str(path))


def _extended(source: Source, *, path: FilePath, extends: Any) -> Source:
    if not isinstance(extends, str):
        raise source.error(("extends",), "must be the path of one other experiment file")
    _, base = _read(path.parent / extends, where=source.where(("extends",), value=extends))
    if "extends" in base.tree:
        raise base.error(("extends",), f"{path.name} extends this file, and one level is the limit")
    return Source(tree=_overlay(base.tree, source.tree), places={**base.places, **source.places}, file=source.file)


def _overlay(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings merge, everything else (and a sweep, which is one value) is replaced."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping) and key != "sweep"
        merged[key] = _overlay(below, value) if both and below is not None else value
    return merged


def _set(source: Source, assignment: str) -> Source:
    name, equals, text = assignment.partition("=")
    path = tuple(name.split("."))
    where = f"--set {assignment}"
    if not equals or not all(path):
        raise ConfigError("expected PATH=VALUE", where=where, hint="for example --set stages.phase2.steps=100")
    if path[0] not in SECTIONS or path[0] == "extends":
        error = named.unknown(path[0], [s for s in SECTIONS if s != "extends"], what=f"no section {path[0]}")
        raise ConfigError(error.what, where=where, hint=error.hint)
    known = source.tree.get("stages")
    if path[0] == "stages" and isinstance(known, Mapping) and (len(path) < 3 or path[1] not in known):
        _refuse_stage(path, known=sorted(known), where=where)
    if path[0] == "stages" and path[2:3] == ("sweep",) and len(path) > 3:
        hint = f"for example --set 'stages.{path[1]}.sweep={{{'.'.join(path[3:])}: {text or '[]'}}}'"
        raise ConfigError("a sweep is set as a whole", where=where, hint=hint)
    try:
        value = yaml.parse(text, file=where).value
    except ConfigError as error:
        raise ConfigError(error.what, where=where, hint=error.hint) from error
    tree = overridden(source.tree, {name: value})
    kept = {place: line for place, line in source.places.items() if place[: len(path)] != path}
    return Source(tree=tree, places={**kept, path: "--set"}, file=source.file)


def _refuse_stage(path: tuple[str, ...], *, known: list[str], where: str) -> None:
    if len(path) > 1 and path[1] not in known:
        error = named.unknown(path[1], known, what=f'no stage "{path[1]}"')
        raise ConfigError(error.what, where=where, hint=error.hint)
    name = path[1] if len(path) > 1 else known[0]
    hint = f"for example --set stages.{name}.seed=1; stages are added in the file"
    raise ConfigError("one option of one stage is set at a time", where=where, hint=hint)


def overridden(tree: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `tree` with values put at dotted paths; what is not on the way to them is shared."""
    copy = dict(tree)
    for path, value in values.items():
        *parents, last = path.split(".")
        level = copy
        for part in parents:
            below = level.get(part)
            level[part] = dict(below) if isinstance(below, Mapping) else {}
            level = level[part]
        level[last] = value
    return copy


def _check_shape(source: Source) -> None:
    tree = source.tree
    for key in tree:
        if key not in SECTIONS:
            error = named.unknown(key, list(SECTIONS), what="no such section")
            raise source.error((key,), error.what, hint=error.hint)
    if "name" not in tree:
        hint = "for example name: my-sweep; status, report and resubmission go by it"
        raise ConfigError('"name" is required and not given', where=source.file, hint=hint)
    _check_name(source, ("name",), tree["name"])
    if not isinstance(tree.get("stages"), Mapping) or not tree["stages"]:
        hint = "for example stages: {images: {kind: images, source: mnist5k, resolution: 32}}"
        raise ConfigError('"stages" is required: a mapping of at least one stage', where=source.file, hint=hint)
    for section in ("defaults", "report"):
        if not isinstance(tree.get(section) or {}, Mapping):
            raise source.error((section,), "must be a mapping")
    for kind, options in (tree.get("defaults") or {}).items():
        _check_default(source, kind, options)
    for name, stage in tree["stages"].items():
        _check_name(source, ("stages", name), name)
        if not isinstance(stage, Mapping):
            raise source.error(("stages", name), "must be a mapping: {kind: ..., options}")
        if "kind" in stage and not isinstance(stage["kind"], str):
            raise source.error(("stages", name, "kind"), "must be one word", hint="for example kind: train")
        if "kind" not in stage:
            raise source.error(("stages", name), 'every stage has a "kind"', hint="for example {kind: train, ...}")


def _check_name(source: Source, path: Path, name: Any) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise source.error(
            path,
            f"{flow(name)} is not a name",
            hint="names are lower-case: a letter, then at most 63 letters, digits, - and _ (they become file names)",
        )


def _check_default(source: Source, kind: str, options: Any) -> None:
    if not isinstance(options, Mapping):
        raise source.error(("defaults", kind), "must be a mapping of options")
    for word in ("kind", "sweep"):
        if word in options:
            raise source.error(("defaults", kind, word), f"{word} belongs to one stage, it has no default")


def _draft(source: Source, name: str) -> Draft:
    stage = source.tree["stages"][name]
    kind = stage["kind"]
    defaults = (source.tree.get("defaults") or {}).get(kind, {})
    options = {key: value for key, value in _overlay(defaults, stage).items() if key not in ("kind", "sweep")}
    points: tuple[Point, ...] = (Point(),)
    if "sweep" in stage:
        points = tuple(_points(source, ("stages", name, "sweep"), stage["sweep"]))
        _check_effect(source, name, points)
    roots: tuple[Path, ...] = (("stages", name), ("defaults", kind))
    return Draft(name=name, kind=kind, options=options, points=points, source=source, roots=roots)


def _check_effect(source: Source, name: str, points: Sequence[Point]) -> None:
    """An option that every point of the sweep overrides cannot be set from outside."""
    for option in points[0].values:
        path: Path = ("stages", name, *option.split("."))
        if source.places.get(path) == "--set" and all(option in point.values for point in points):
            raise source.error(path, f"has no effect: the sweep of {name} gives {option} at every point")


def _points(source: Source, path: Path, sweep: Any) -> Iterator[Point]:
    if not isinstance(sweep, list | Mapping):
        raise source.error(path, "a sweep is a list of points, a mapping of lists, or {zip: a mapping of lists}")
    if not sweep:
        raise source.error(path, "an empty sweep", hint="remove it, or give it points")
    if isinstance(sweep, list):
        return _listed(source, path, sweep)
    if "zip" not in sweep:
        return _crossed(source, path, sweep, together=False)
    if len(sweep) > 1:
        raise source.error(path, "zip stands alone in its sweep")
    if not isinstance(sweep["zip"], Mapping) or not sweep["zip"]:
        raise source.error((*path, "zip"), "must be a mapping of lists")
    return _crossed(source, (*path, "zip"), sweep["zip"], together=True)


def _listed(source: Source, path: Path, sweep: list[Any]) -> Iterator[Point]:
    for number, values in enumerate(sweep):
        if not isinstance(values, Mapping) or not values:
            raise source.error((*path, number), "a point is a mapping of option paths to values")
        for key in values:
            _check_option(source, (*path, number, key))
        yield Point(values=values, paths={key: (*path, number, key) for key in values})


def _crossed(source: Source, path: Path, lists: Mapping[str, Any], *, together: bool) -> Iterator[Point]:
    for key, values in lists.items():
        _check_option(source, (*path, key))
        if not isinstance(values, list) or not values:
            raise source.error((*path, key), "must be a list of at least one value")
    if together and len({len(values) for values in lists.values()}) > 1:
        lengths = ", ".join(f"{key}: {len(values)}" for key, values in lists.items())
        raise source.error(
            path, f"zipped lists must be equally long, these are not ({lengths})", hint="crossed lists go without zip"
        )
    if not together and (count := math.prod(map(len, lists.values()))) > MAX_POINTS:
        raise source.error(path, f"a grid of {count:,} points, at most {MAX_POINTS:,} can be planned", hint=_FEWER)
    choices = [[((*path, key, n), value) for n, value in enumerate(values)] for key, values in lists.items()]
    for row in zip(*choices, strict=True) if together else itertools.product(*choices):
        picked = dict(zip(lists, row, strict=True))
        yield Point(
            values={key: value for key, (_, value) in picked.items()},
            paths={key: place for key, (place, _) in picked.items()},
        )


def _check_option(source: Source, path: Path) -> None:
    key = path[-1]
    assert isinstance(key, str)
    if not _OPTION.fullmatch(key) or key.split(".")[0] in ("kind", "sweep"):
        raise source.error(path, f"{flow(key)} is no option path", hint="for example seed, or alignment.guidance")


def value_at(tree: Any, path: Path) -> Any:
    """The value at a path of a tree, or an empty mapping if there is none."""
    for part in path:
        inside = part in tree if isinstance(tree, Mapping) else isinstance(tree, list) and part in range(len(tree))
        if not inside:
            return {}
        tree = tree[part]
    return tree


def _is_leaf(value: Any) -> bool:
    return not isinstance(value, Mapping)


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
