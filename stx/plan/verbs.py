"""What would happen to every stage, and why. Read from the store's files only: nothing is written, no clock is read.

cached   finished, whoever made it
attach   another attempt or stage is at it
resume   something of it is there
run      nothing is there, its inputs are
rerun    this experiment's last plan had another key under this name
wait     its inputs are not finished
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from stx import records
from stx.config.yaml import flow
from stx.endings import unfinished
from stx.errors import PlanError
from stx.paths import StageDir, Store, parts_folder
from stx.spec import Graph, Input, Node, StageSpec


class Verb(StrEnum):
    """What a submit would do about a stage."""

    CACHED = "cached"
    ATTACH = "attach"
    RESUME = "resume"
    RUN = "run"
    RERUN = "rerun"
    WAIT = "wait"


@dataclass(frozen=True)
class Made:
    """A finished result: its payload digest and what its artifact.json says of its making."""

    images: int | None
    digest: str
    experiment: str
    seconds: float
    share: float
    found: Mapping[str, Any] | None = None  # what an images stage found in its source


@dataclass(frozen=True)
class Seen:
    """What the store has of one key. `results` by images seen (None for a kind that does not grow)."""

    results: Mapping[int | None, Made]
    checkpoints: tuple[int, ...] = ()
    attempts: int = 0
    live: str | None = None

    @property
    def finished(self) -> tuple[int, ...]:
        """The images-seen counts that are finished, ascending."""
        return tuple(sorted(images for images in self.results if images is not None))


NOTHING = Seen(results={})


@dataclass(frozen=True)
class PlanLine:
    """One node, what would happen to it, and the reason in plain words."""

    node: Node
    verb: Verb
    reason: str


def survey(graph: Graph, store: Store) -> dict[str, Seen]:
    """What the store has of each key of a graph. Keys with nothing are left out."""
    present = set(store.stage_names())
    seen: dict[str, Seen] = {}
    for node in graph.nodes:
        stage = store.stage(node.spec.kind, node.key)
        if node.key not in seen and stage.path.name in present:
            seen[node.key] = _seen(stage, node)
    return seen


def _seen(stage: StageDir, node: Node) -> Seen:
    inside = set(records.names(stage.path))
    kind = node.spec.kind
    results: dict[int | None, Made] = {}
    if node.grows:
        found = stage.parts(kind) if parts_folder(kind) in inside else []
        results = {images: _made(stage.part(kind, images).artifact, images) for images in found}
    elif stage.result.artifact.name in inside:
        results = {None: _made(stage.result.artifact, None)}
    complete = set(results) >= set(node.wants or (None,))
    return Seen(
        results=results,
        checkpoints=tuple(stage.saved()) if stage.checkpoints.name in inside and not complete else (),
        attempts=len(stage.attempts()) if "attempts" in inside and not complete else 0,
        live=_live(stage) if "attempts" in inside and not complete else None,
    )


def _made(artifact: Path, images: int | None) -> Made:
    record = records.read(artifact, limit=records.ARTIFACT_BYTES)
    with records.understood(artifact):
        info = record.get("info", {})
        rows, found = info.get("rows_made", 1), info.get("rows_found", 0)
        return Made(
            images=images,
            digest=record["digest"],
            experiment=info.get("experiment", ""),
            seconds=info.get("seconds", 0.0),
            share=rows / max(1, rows + found),
            found=info.get("found"),
        )


def _live(stage: StageDir) -> str | None:
    """A sentence about the attempt whose files do not say that it is over."""
    live = unfinished(stage)
    return None if live is None else f"attempt {live.number} is live, held by experiment {live.experiment}"


Place = Callable[[Node, str], str]


def named_only(node: Node, option: str) -> str:
    """The place of an option where there is no file."""
    return f"{node.name}.{option}"


def lines(
    graph: Graph, seen: Mapping[str, Seen], *, previous: Graph | None = None, place: Place = named_only
) -> list[PlanLine]:
    """A verb and a reason for every node. PlanError, at the option's `place`: a milestone was passed and not kept, a
    user's file is gone.
    """
    before = {node.name: node for node in previous.nodes} if previous else {}
    by_key = {node.key: node for node in reversed(graph.nodes)}
    ready = {key for key, node in by_key.items() if not _missing(node, seen.get(key, NOTHING))}
    planned = _Planner(seen=seen, by_key=by_key, ready=ready, before=before, place=place)
    return list(planned.lines(graph))


@dataclass(frozen=True)
class _Planner:
    """What one plan knows while it goes through the nodes."""

    seen: Mapping[str, Seen]
    by_key: Mapping[str, Node]
    ready: set[str]
    before: Mapping[str, Node]
    place: Place

    def lines(self, graph: Graph) -> Iterator[PlanLine]:
        """In the graph's order."""
        for node in graph.nodes:
            verb, reason = self.verdict(node, self.seen.get(node.key, NOTHING))
            yield PlanLine(node, verb, reason)

    def verdict(self, node: Node, seen: Seen) -> tuple[Verb, str]:
        """The verb and its reason."""
        missing = _missing(node, seen)
        if not missing:
            _check_source(node, seen, place=self.place)
            return Verb.CACHED, _cached(node, seen)
        _check_passed(node, seen, missing, place=self.place)
        _check_files(node, place=self.place)
        first = self.by_key[node.key]
        if first is not node and set(node.wants) <= set(first.wants):
            return Verb.ATTACH, f"the same stage as {first.name}: their keys are equal"
        if seen.live is not None:
            return Verb.ATTACH, seen.live
        waits = self.waits(node, seen)
        old = self.before.get(node.name)
        if old is not None and old.key != node.key and not seen.results and not seen.checkpoints:
            then = f"; {waits}" if waits else ""
            return Verb.RERUN, f"key changed since last submit: {', '.join(changes(old, node))}{then}"
        if seen.checkpoints or seen.results:
            return Verb.RESUME, _resumed(node, seen, missing)
        if waits:
            return Verb.WAIT, waits
        return Verb.RUN, f"{seen.attempts} attempts left nothing" if seen.attempts else "no attempt yet"

    def waits(self, node: Node, seen: Seen) -> str:
        """`needs a, b`, or nothing if the stage could start."""
        names = [self.by_key[i.key].name for i in node.spec.inputs.values() if not self.has(i, node=node, seen=seen)]
        return f"needs {', '.join(dict.fromkeys(names))}" if names else ""

    def has(self, source: Input, *, node: Node, seen: Seen) -> bool:
        """Whether an input is there; of a whole growing one, a part that this stage has not worked through yet."""
        there = self.seen.get(source.key, NOTHING)
        if source.images is not None:
            return source.images in there.results
        if self.by_key[source.key].grows and node.grows:
            return any(images in there.results for images in _missing(node, seen))
        return source.key in self.ready


def _missing(node: Node, seen: Seen) -> list[int | None]:
    wanted: Sequence[int | None] = node.wants if node.grows else (None,)
    return [images for images in wanted if images not in seen.results]


def _cached(node: Node, seen: Seen) -> str:
    made = seen.results[node.wants[-1] if node.grows else None]
    by = f", by experiment {made.experiment}" if made.experiment else ""
    count = f"{len(node.wants)} results, last " if len(node.wants) > 1 else ""
    return f"finished ({count}payload {made.digest[:8]}{by})"


def _resumed(node: Node, seen: Seen, missing: Sequence[int | None]) -> str:
    if node.spec.kind == "train":
        start = max((*seen.checkpoints, 0))
        return (
            f"checkpoint at {start:,} of {node.wants[-1]:,} images" if start else "no checkpoint left, from the start"
        )
    if not node.grows:
        return f"checkpoint at {seen.checkpoints[-1]:,} images"
    left = ", ".join(f"{images:,}" for images in missing)
    return f"{len(node.wants) - len(missing)} of {len(node.wants)} parts are finished, not {left} images"


def _check_passed(node: Node, seen: Seen, missing: Sequence[int | None], *, place: Place) -> None:
    """A run continues from its newest checkpoint, so what lies before it and was not kept cannot be had."""
    if node.spec.kind != "train" or not seen.checkpoints:
        return
    newest = seen.checkpoints[-1]
    passed = [images for images in missing if images is not None and images < newest and images not in seen.checkpoints]
    if passed:
        kept = ", ".join(f"{images:,}" for images in seen.finished) or "none"
        raise PlanError(
            f"a milestone at {passed[0]:,} images is wanted, but the run is at {newest:,} and did not keep it",
            where=place(node, "milestones"),
            hint=f"kept (images seen): {kept}; choose among these, or later ones",
        )


def _check_files(node: Node, *, place: Place) -> None:
    """A file of the user's must be there when the stage has to run."""
    named = {"checkpoint": node.where["checkpoint"]} if "checkpoint" in node.where else {}
    named |= {f"inputs.{name}.path": path for name, path in node.where.get("inputs", {}).items()}
    for option, path in named.items():
        if not Path(path).exists():
            raise PlanError(
                f"{path} does not exist",
                where=place(node, option),
                hint="paths are relative to the experiment file",
            )


def _check_source(node: Node, seen: Seen, *, place: Place) -> None:
    """A finished stage stands for the images that its source had: another source needs another version word."""
    now = node.where.get("found")
    made = seen.results.get(None)
    if now is None or made is None or made.found is None or made.found == now:
        return
    what = f"this source has {now['num_images']:,} images, the finished stage had {made.found['num_images']:,}"
    if now["num_images"] == made.found["num_images"]:
        what = "this source has other classes than the finished stage of this version"
    raise PlanError(what, where=place(node, "source.version"), hint="other images need another version word")


def changes(old: Node, new: Node) -> list[str]:
    """What of a key changed: `alignment.guidance 5 -> 10`, `input teacher`."""
    found = _differences(old.spec, new.spec)
    return found or ["its inputs"]


def _differences(old: StageSpec, new: StageSpec) -> list[str]:
    found = []
    if old.kind != new.kind:
        return [f"kind {old.kind} -> {new.kind}"]
    if old.recipe != new.recipe:
        found.append(f"recipe {old.recipe} -> {new.recipe}")
    before, after = dict(_flat(old.science)), dict(_flat(new.science))
    changed = [path for path in sorted({*before, *after}) if before.get(path) != after.get(path)]
    found += [f"{path} {before.get(path, 'unset')} -> {after.get(path, 'unset')}" for path in changed]
    names = sorted({*old.inputs, *new.inputs})
    return found + [f"input {name}" for name in names if old.inputs.get(name) != new.inputs.get(name)]


def _flat(value: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{key}.")
        else:
            shown = int(item) if isinstance(item, float) and item.is_integer() else item
            yield prefix + key, flow(shown)
