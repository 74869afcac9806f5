"""`stx gc --pin` and `--unpin`: a pinned stage stays, with all that it was made from, whatever experiments want."""

from jobs import files
from stx import records
from stx.coordinator.prepare import writing
from stx.coordinator.roots import pins, stage_dirs
from stx.errors import ConfigError
from stx.paths import Store
from stx.spec import Node
from stx.verbs import console
from stx.verbs.select import choose, existing_store, experiment_names, folders_of, load_graph, match


def run(*, store: str | None, pin: str | None, unpin: str | None, others: bool) -> None:
    """The verb. `others`: flags of the removal were given, too."""
    if others:
        raise ConfigError("--pin and --unpin stand alone", hint="pin first; then: stx gc --yes")
    place = existing_store(store)
    with writing(place.root):
        if pin is not None:
            name = one_stage(place, pin, known=[stage.path.name for stage in stage_dirs(place)])
            if name is None:
                raise _nothing_there(place, pin)
            files.make_dir(place.pins)
            records.publish(place.pin(name), {"stage": name, "as": pin})
            console.say(f"pinned {name}; it stays with what it was made from")
        if unpin is not None:
            pinned = pins(place)
            name = one_stage(place, unpin, known=pinned)
            if name is None:
                listed = f"pinned: {', '.join(pinned)}" if pinned else "nothing is pinned"
                raise ConfigError(f'"{unpin}" is not pinned', where=str(place.root), hint=listed)
            place.pin(name).unlink(missing_ok=True)
            console.say(f"unpinned {name}; it stays while an experiment wants it")
    console.next_commands("stx gc   (shows what may go)")


def one_stage(place: Store, pattern: str, *, known: list[str]) -> str | None:
    """The directory's name of the one stage among `known` that a pattern names: a stage of an experiment, or the first
    digits of a key, for a stage that no experiment names any more has nothing else. None: it names none of them.
    """
    found = {*folders_of(pattern, known), *(_named(place, pattern) & set(known))}
    if len(found) > 1:
        raise ConfigError(f'"{pattern}" names {len(found)} stages', hint=f"give one of: {', '.join(sorted(found))}")
    return found.pop() if found else None


def _nothing_there(place: Store, pattern: str) -> ConfigError:
    """Why a pattern names no stage that could be pinned; choose raises where nothing at all is called so."""
    chosen = choose(place, pattern)
    if chosen[0].whole:
        return ConfigError(f'"{pattern}" is an experiment', hint=f"one stage is pinned at a time: {pattern}/STAGE")
    return ConfigError(f'"{pattern}" has not begun: the store has nothing of it', hint="submit its experiment first")


def _named(place: Store, pattern: str) -> set[str]:
    nodes: list[Node] = []
    for experiment in experiment_names(place):
        inside = pattern.removeprefix(f"{experiment}/")
        nodes += match(load_graph(place.experiment(experiment)), inside)
    return {place.stage(node.spec.kind, node.key).path.name for node in nodes}
