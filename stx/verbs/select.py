"""Which store, which experiments, which stages: what people type is matched in one place, and nothing unknown passes
silently.

A pattern is an experiment's name, a stage's name (all points of its sweep), the name of one point, a prefix of a key
of at least four hex digits, or a glob over any of the names; EXPERIMENT/PATTERN narrows it to one experiment. A stage
of NAME is meant before that of its smoke run NAME-smoke.
"""

import difflib
import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stx import records, sharing
from stx.errors import ConfigError
from stx.named import unknown
from stx.paths import KEY_DIGITS, ExperimentDir, Store
from stx.spec import Graph, Node
from stx.verbs import console

KEY_PREFIX = re.compile(r"(?:[a-z]+-)?([0-9a-f]{4,64})")
DEFAULT_STORE = "stx-store"


@dataclass(frozen=True)
class Chosen:
    """Nodes of one experiment; `whole` where the pattern named the experiment itself."""

    experiment: str
    graph: Graph
    nodes: tuple[Node, ...]
    whole: bool


def store_root(given: str | None, *, cluster_store: str | None = None) -> Path:
    """--store, else $STX_STORE, else the cluster file's, else ./stx-store; absolute, because jobs start elsewhere."""
    chosen = given or os.environ.get("STX_STORE") or cluster_store or DEFAULT_STORE
    if cluster_store and chosen is cluster_store:
        console.remember_store(str(Path(chosen).expanduser().absolute()))
    return Path(chosen).expanduser().absolute()


def existing_store(given: str | None) -> Store:
    """The store of a verb that only reads."""
    store = Store(store_root(given))
    if store.root.exists() and not store.root.is_dir():
        raise ConfigError("a store is a folder, this is a file", where=str(store.root), hint="give --store DIR")
    if store.root.exists():
        sharing.open_store(store)
    if not store.experiments.is_dir():
        raise ConfigError(
            "no experiment was ever submitted here",
            where=str(store.root),
            hint="give --store DIR or set STX_STORE; `stx submit FILE` makes a store",
        )
    return store


def experiment_names(store: Store) -> list[str]:
    """Those that have a graph, sorted."""
    return store.experiment_names()


def load_graph(experiment: ExperimentDir) -> Graph:
    """The planned graph."""
    record = records.read(experiment.graph, limit=records.GRAPH_BYTES)
    with records.understood(experiment.graph):
        return Graph.parse(record)


def one_experiment(store: Store, name: str) -> ExperimentDir:
    """An experiment by its exact name."""
    known = experiment_names(store)
    if name not in known:
        raise unknown(name.partition("/")[0], known, what=f'no experiment "{name}" in {store.root}')
    return store.experiment(name)


def choose(store: Store, pattern: str | None, *, near: str | None = None) -> list[Chosen]:
    """All that a pattern names; without one, every experiment. `near` is an experiment that counts even where it is a
    smoke run.
    """
    names = experiment_names(store)
    if pattern is None:
        return [_whole(store, name) for name in names]
    named = fnmatch.filter(names, pattern) if pattern not in names else [pattern]
    if named:
        return [_whole(store, name) for name in named]
    head, slash, rest = pattern.partition("/")
    within = fnmatch.filter(names, head) if slash else names
    wanted = rest if slash and within else pattern
    graphs = [load_graph(store.experiment(name)) for name in (within or names)]
    found = [Chosen(graph.experiment, graph, nodes, whole=False) for graph in graphs if (nodes := match(graph, wanted))]
    if not found:
        raise _nothing(pattern, store=store, within=within, graphs=graphs)
    return found if slash or len(found) == 1 else _without_smoke(store, found, near=near)


def _without_smoke(store: Store, found: Sequence[Chosen], *, near: str | None) -> list[Chosen]:
    """Without NAME-smoke where NAME has the stage, too."""
    from stx.plan.smoke import SUFFIX, is_smoke

    def small(one: Chosen) -> bool:
        return is_smoke(records.text(store.experiment(one.experiment).file))

    names = {one.experiment + SUFFIX for one in found} - {near}
    return [one for one in found if one.experiment not in names or not small(one)]


def _whole(store: Store, name: str) -> Chosen:
    graph = load_graph(store.experiment(name))
    return Chosen(name, graph, graph.nodes, whole=True)


def match(graph: Graph, pattern: str) -> tuple[Node, ...]:
    """The nodes of one graph that a pattern names: exact names beat key prefixes beat globs."""
    exact = tuple(node for node in graph.nodes if node.name == pattern) or tuple(
        node for node in graph.nodes if node.stage == pattern
    )
    if exact:
        return exact
    prefix = KEY_PREFIX.fullmatch(pattern)
    keyed = tuple(node for node in graph.nodes if prefix and node.key.startswith(prefix[1]))
    return keyed or tuple(
        node
        for node in graph.nodes
        if fnmatch.fnmatchcase(node.name, pattern) or fnmatch.fnmatchcase(node.stage, pattern)
    )


def choose_one(
    store: Store, pattern: str, *, near: str | None = None, fit: Callable[[Node], bool] = lambda node: True
) -> tuple[Chosen, Node]:
    """Exactly one stage, for verbs that show one; experiments that share a key count once. A name that several
    experiments have is that of the experiment `near`, if it is one of them; of several stages only those that are `fit`
    are meant, if any is.
    """
    found = choose(store, pattern, near=near)
    chosen = [one for one in found if one.experiment == near] or found
    named = [(one, node) for one in chosen for node in one.nodes]
    if len({node.key for _, node in named}) > 1:
        named = [(one, node) for one, node in named if fit(node)] or named
    keys = {node.key for _, node in named}
    if len(keys) > 1:
        several = len({one.experiment for one, _ in named}) > 1
        names = [f"{one.experiment}/{node.name}" if several else node.name for one, node in named]
        raise ConfigError(f'"{pattern}" names {len(keys)} stages', hint=f"give one of: {_listed(names)}")
    return named[0]


def _nothing(pattern: str, *, store: Store, within: Sequence[str], graphs: Sequence[Graph]) -> ConfigError:
    """The error for a pattern that names nothing. `within`: the experiments that stand before its slash."""
    folders = folders_of(pattern, store.stage_names())
    if folders:
        hint = f"its folder is {folders[0]}; stx gc shows whether it may go, stx gc --pin {pattern} keeps it"
        return ConfigError(f'no experiment names "{pattern}" any more', where=str(store.root), hint=hint)
    names = experiment_names(store)
    stages = list(dict.fromkeys(node.stage for graph in graphs for node in graph.nodes))
    points = list(dict.fromkeys(node.name for graph in graphs for node in graph.nodes))
    head, _, name = pattern.rpartition("/")
    among = points if ":" in name else [*stages, *points] if head else [*names, *stages, *points]
    near = difflib.get_close_matches(name, among, n=1)
    before = within or difflib.get_close_matches(head, names, n=1)
    meant = f"{before[0]}/{near[0]}" if near and head and before else near[0] if near else ""
    did_you_mean = f'did you mean "{meant}"? ' if meant else ""
    known = ", ".join(dict.fromkeys([*names, *stages]))
    return ConfigError(f'nothing is called "{pattern}" in {store.root}', hint=f"{did_you_mean}known: {known}")


def folders_of(pattern: str, names: Iterable[str]) -> list[str]:
    """Those names of stage folders (as `stx gc` shows them) whose key begins with the digits of a pattern."""
    prefix = KEY_PREFIX.fullmatch(pattern)
    digits = prefix[1][:KEY_DIGITS] if prefix else None
    return sorted(name for name in names if digits and name.rpartition("-")[2].startswith(digits))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f", ... ({len(names)} in all)" if len(names) > 12 else "")
