"""`stx gc`: shows what of a store may go, asks, and removes it. `--forget` lets an experiment go with
everything that only it wanted. What stays although no experiment wants it is the business of pin.py.

In a store of several people everybody removes what he made himself; what others made is shown with their names, and
goes with --others only, which is for the owner of the store.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from jobs.launcher import Launcher
from stx import sharing
from stx.config.cluster import load_cluster
from stx.coordinator import lease, roots
from stx.coordinator.garbage import Garbage, garbage, of_experiment
from stx.coordinator.prepare import writing
from stx.coordinator.roots import Roots
from stx.coordinator.sweep import Swept, sweep
from stx.errors import ConfigError, LeaseHeld
from stx.paths import StageDir, Store
from stx.report.words import plural, size
from stx.verbs import console
from stx.verbs.launching import launcher_of
from stx.verbs.select import existing_store, one_experiment

FOLD_FROM = 40
FOLDED = 5
FORGET_LEASE_S = 60.0
GUESTS = "the owner of a store may remove what others made: stx gc --others"


def run(*, store: str | None, cluster: str | None, yes: bool, forget: str | None, others: bool, as_json: bool) -> int:
    """The verb; its exit code."""
    place, where = existing_store(store), load_cluster(cluster)
    launcher = launcher_of(where, place)
    if others:
        _refuse_guests(place)
    with _forgetting(place, forget) as check:
        found, kept = find(place, launcher, forget=forget)
        ours = [one for one in found if others or not one.user]
        if not as_json:
            console.out(shown(found, root=place.root))
            console.say(kept_words(kept))
            if len(ours) < len(found):
                console.say(f"stays: {plural(len(found) - len(ours), 'thing')} that others made; {GUESTS}")
        swept = None
        if ours and (yes or (not as_json and _asked(ours))):
            check()
            swept = remove(place, ours, launcher, forget=forget)
    if as_json:
        console.out_json(to_json(place, found, swept))
    elif swept is not None:
        console.say(told(swept))
    elif ours:
        console.next_commands("stx gc --yes" + (f" --forget {forget}" if forget else "") + "   (removes it)")
    elif forget is None:
        console.next_commands("stx gc --forget EXPERIMENT   (also what only this experiment wanted)")
    return 2 if swept is not None and swept.failed else 0


def _refuse_guests(place: Store) -> None:
    """ConfigError unless the store is ours: then what others made in it may go, too."""
    owner = place.root.stat().st_uid
    if os.geteuid() not in (owner, 0):
        hint = f"the store is {sharing.user_name(owner)}'s; without --others, what you made yourself may go"
        raise ConfigError(GUESTS, where=str(place.root), hint=hint)


def find(place: Store, launcher: Launcher, *, forget: str | None) -> tuple[list[Garbage], Roots]:
    """What may go, and what stays."""
    kept = roots.roots(place, launcher=launcher, forget=forget)
    working = [name for name, experiment in kept.alive.items() if experiment == forget]
    if working:
        raise ConfigError(f"{forget} has jobs that are not over: {', '.join(working)}", hint=f"stx cancel {forget}")
    first = [of_experiment(place, forget)] if forget else []
    return [*first, *garbage(place, kept)], kept


def remove(place: Store, found: Sequence[Garbage], launcher: Launcher, *, forget: str | None) -> Swept:
    """Remove it; the marks of a forgotten experiment go last, from stages that others want."""
    marked = [name for name, _ in roots.wanted_by(place, forget)] if forget else []
    with writing(place.root):
        swept = sweep(place, found, lambda: roots.roots(place, launcher=launcher, forget=forget))
        for name in marked:
            StageDir(place.stages / name).mark(str(forget)).unlink(missing_ok=True)
    return swept


@contextlib.contextmanager
def _forgetting(place: Store, name: str | None) -> Iterator[Callable[[], None]]:
    """Hold the lease of the experiment that is to be forgotten, so that nobody drives it; gives a check that it is
    still held, for a person may take long to answer.
    """
    if name is None:
        yield lambda: None
        return
    directory = one_experiment(place, name)
    sharing.refuse_other(directory, hint="nobody else can forget it; what only it wants stays")
    with writing(directory.path):
        try:
            held = lease.acquire(directory, lease_s=FORGET_LEASE_S)
        except LeaseHeld as error:
            hint = f"end it first: Ctrl-C where it runs, or stx cancel {name}"
            raise LeaseHeld(error.what, where=str(directory.path), hint=hint) from error
    try:
        yield held.hold
    finally:
        held.release()


def _asked(found: Sequence[Garbage]) -> bool:
    total = size(sum(one.bytes for one in found))
    return console.interactive() and console.ask(f"remove {plural(len(found), 'thing')}, {total}, for good?")


def shown(found: Sequence[Garbage], *, root: Path) -> str:
    """One line a thing, the largest of each kind first; many of a kind are folded."""
    if not found:
        return "nothing may go"
    rows: list[tuple[str, ...]] = []
    for kind in dict.fromkeys(one.kind for one in found):
        of_kind = sorted((one for one in found if one.kind == kind), key=lambda one: -one.bytes)
        listed = of_kind if len(found) <= FOLD_FROM else of_kind[:FOLDED]
        rows += [
            (kind, str(one.path.relative_to(root)), size(one.bytes), f"{one.files:,}", _why(one)) for one in listed
        ]
        rest = of_kind[len(listed) :]
        if rest:
            rows.append((kind, f"and {len(rest):,} more", *_amount(rest), ""))
    rows.append(("total", plural(len(found), "thing"), *_amount(found), ""))
    header = ("kind", "path", "size", "files", "why")
    styles = [""] * (len(rows) - 1) + ["bold"]
    return console.table(header, rows, right=frozenset({"size", "files"}), styles=styles, stream=sys.stdout)


def _why(one: Garbage) -> str:
    return f"{one.user}'s: {one.why}" if one.user else one.why


def _amount(some: Sequence[Garbage]) -> tuple[str, str]:
    return size(sum(one.bytes for one in some)), f"{sum(one.files for one in some):,}"


def kept_words(kept: Roots) -> str:
    """What stays although no experiment wants it, and how much stays."""
    odd = [(name, why) for name, why in kept.stages.items() if not why.startswith("wanted by")]
    lines = [f"stays: {name}: {why}" for name, why in odd[:FOLDED]]
    if len(odd) > FOLDED:
        lines.append(f"stays: {len(odd) - FOLDED:,} more that are pinned, at work, or what these were made from")
    wanted = len(kept.stages) - len(odd)
    return "\n".join([*lines, f"stays: {plural(wanted, 'stage')} that experiments want"])


def told(swept: Swept) -> str:
    """What became of it."""
    freed = size(sum(one.bytes for one in swept.removed))
    lines = [f"removed {plural(len(swept.removed), 'thing')}, {freed}"]
    lines += [f"kept {one.path.name}: it was claimed meanwhile" for one in swept.kept]
    lines += [f"cannot be removed: {path}: {why}" for path, why in swept.failed]
    return "\n".join(lines)


def to_json(place: Store, found: Sequence[Garbage], swept: Swept | None) -> dict[str, object]:
    """The answer for programs; `removed` is null where nothing was to be removed."""
    return {
        "store": str(place.root),
        "garbage": [one.dump() for one in found],
        "bytes": sum(one.bytes for one in found),
        "removed": None if swept is None else [str(one.path) for one in swept.removed],
    }
