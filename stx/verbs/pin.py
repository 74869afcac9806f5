"""`stx gc --pin` and `--unpin`: a pinned stage stays, with all that it was made from, whatever experiments want."""

from stx import records
from stx.coordinator.prepare import writing
from stx.coordinator.roots import pins, stage_dirs
from stx.errors import ConfigError
from stx.named import unknown
from stx.paths import KEY_DIGITS, Store
from stx.spec import Node
from stx.verbs import console
from stx.verbs.select import KEY_PREFIX, existing_store, experiment_names, load_graph, match


def run(*, store: str | None, pin: str | None, unpin: str | None, others: bool) -> None:
    """The verb. `others`: flags of the removal were given, too."""
    if others:
        raise ConfigError("--pin and --unpin stand alone", hint="pin first; then: stx gc --yes")
    place = existing_store(store)
    with writing(place.root):
        if pin is not None:
            name = one_stage(place, pin, known=[stage.path.name for stage in stage_dirs(place)])
            place.pins.mkdir(exist_ok=True)
            records.publish(place.pin(name), {"stage": name, "as": pin})
            console.say(f"pinned {name}; it stays with what it was made from")
        if unpin is not None:
            name = one_stage(place, unpin, known=pins(place))
            place.pin(name).unlink(missing_ok=True)
            console.say(f"unpinned {name}; it stays while an experiment wants it")
    console.next_commands("stx gc   (shows what may go)")


def one_stage(place: Store, pattern: str, *, known: list[str]) -> str:
    """The directory's name of the one stage that a pattern names: a stage of an experiment, or the first digits of a
    key, for a stage that no experiment names any more has nothing else.
    """
    prefix = KEY_PREFIX.fullmatch(pattern)
    found = {name for name in known if name == pattern or (prefix and _digits(name).startswith(prefix[1][:KEY_DIGITS]))}
    found |= {name for name in _named(place, pattern) if name in known}
    if len(found) > 1:
        raise ConfigError(f'"{pattern}" names {len(found)} stages', hint=f"give one of: {', '.join(sorted(found))}")
    if not found:
        raise unknown(pattern, sorted(known), what=f'no such stage here: "{pattern}"')
    return found.pop()


def _digits(name: str) -> str:
    return name.rpartition("-")[2]


def _named(place: Store, pattern: str) -> set[str]:
    nodes: list[Node] = []
    for experiment in experiment_names(place):
        inside = pattern.removeprefix(f"{experiment}/")
        nodes += match(load_graph(place.experiment(experiment)), inside)
    return {place.stage(node.spec.kind, node.key).path.name for node in nodes}
