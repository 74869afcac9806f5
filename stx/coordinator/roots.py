"""What in a store must stay, and why: everything that any experiment's graph names, what is pinned, and what attempts
that are not over work on; with all that these were made from. Reads only.

An attempt is over when all its ranks spoke or a verdict was published. One that left no word counts as alive, unless
its launcher is within reach and says that the job is gone: better a directory too many.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from jobs.files import AttemptDir
from jobs.launcher import Launcher
from jobs.spec import Handle, JobState
from stx import records
from stx.coordinator import lease
from stx.coordinator.attempts import ask
from stx.coordinator.survey import find_job
from stx.endings import Claim, unfinished
from stx.errors import BackendError
from stx.paths import ExperimentDir, StageDir, Store

PINNED = "pinned"


@dataclass(frozen=True)
class Roots:
    """`stages`: names of stage directories that stay, with the reason. `wants`: what graphs want of them, images seen.
    `alive`: those with an attempt that is not over, and whose it is. `codes`: digests of sources in use.
    """

    stages: Mapping[str, str]
    wants: Mapping[str, frozenset[int]]
    alive: Mapping[str, str]
    codes: frozenset[str]


def roots(store: Store, *, launcher: Launcher, forget: str | None = None) -> Roots:
    """What must stay. `forget` is an experiment that counts no more; StoreError where a record cannot be read."""
    kept: dict[str, str] = {}
    wants: dict[str, set[int]] = {}
    codes: set[str] = set()
    for name in store.experiment_names():
        codes |= {lease.code_in_use(store.experiment(name)), _code_of_a_job(store.experiment(name))}
        if name == forget:
            continue
        for wanted, images in wanted_by(store, name):
            kept.setdefault(wanted, f"wanted by {name}")
            wants.setdefault(wanted, set()).update(images)
    kept |= dict.fromkeys(pins(store), PINNED)
    alive: dict[str, str] = {}
    for stage in stage_dirs(store):
        live = unfinished(stage)
        if live is not None and not _is_gone(live, stage.attempt(live.number), launcher=launcher):
            alive[stage.path.name] = live.experiment
            words = f"attempt {live.number} of {live.experiment} on {live.host} is not over"
            kept.setdefault(stage.path.name, words)
            codes.add(live.code)
    _keep_sources(store, kept)
    return Roots(kept, {name: frozenset(images) for name, images in wants.items()}, alive, frozenset(codes - {""}))


def _code_of_a_job(experiment: ExperimentDir) -> str:
    """The digest of the sources that a coordinator's job runs from, or will."""
    return str((records.find(experiment.coordinator) or {}).get("code", ""))


def wanted_by(store: Store, experiment: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The stage directories that a graph names, with the images-seen counts it wants of each."""
    path = store.experiment(experiment).graph
    record = records.find(path, limit=records.GRAPH_BYTES)
    if record is None:
        return  # forgotten meanwhile
    with records.understood(path):
        yield from [
            (store.stage(node["spec"]["kind"], node["key"]).path.name, tuple(node["wants"])) for node in record["nodes"]
        ]


def pins(store: Store) -> list[str]:
    """The names of the pinned stage directories, sorted."""
    return [name.removesuffix(".json") for name in records.names(store.pins) if name.endswith(".json")]


def stage_dirs(store: Store) -> list[StageDir]:
    """All stages there are, sorted."""
    return [StageDir(store.stages / name) for name in store.stage_names() if (store.stages / name).is_dir()]


def _is_gone(claim: Claim, attempt: AttemptDir, *, launcher: Launcher) -> bool:
    """Whether the launcher surely has no such job any more."""
    if claim.launcher != launcher.identity():
        return False
    job_id = find_job(attempt)
    if job_id is None:
        return False  # claimed a moment ago, or never submitted: its experiment knows
    handle = Handle(tag=claim.tag, job_id=job_id)
    try:
        seen = ask(lambda: launcher.poll((handle,), {handle.tag: attempt.path}))
    except BackendError:
        return False
    return seen[handle].state is JobState.ENDED


def _keep_sources(store: Store, kept: dict[str, str]) -> None:
    """Whatever was kept for a graph has its inputs in that graph; a pin or a live attempt may stand alone."""
    pending: list[str] = [name for name, why in kept.items() if not why.startswith("wanted by")]
    while pending:
        name = pending.pop()
        for source in sources(StageDir(store.stages / name)):
            if source not in kept:
                kept[source] = f"{name} was made from it"
                pending.append(source)


def sources(stage: StageDir) -> Iterable[str]:
    """The directory names of a stage's inputs."""
    record = records.find(stage.record)
    if record is None:
        return []
    with records.understood(stage.record):
        store = Store(stage.path.parent.parent)
        return [store.stage(one["kind"], one["key"]).path.name for one in record["inputs"].values()]
