"""The run that nobody touches, and stores that begin with some of its results."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stx.errors import StxError
from tools.chaos import compare, submits
from tools.chaos.processes import end_all
from tools.chaos.site import DevCluster


@dataclass(frozen=True)
class Untouched:
    """A finished store, what it holds, and how long it took (0 when it was there)."""

    store: Path
    experiment: str
    digests: dict[str, str]
    seconds: float


def untouched(folder: Path, *, experiment: str, file: Path, cluster: str, site: DevCluster | None = None) -> Untouched:
    """Run the experiment once, undisturbed; StxError with the end of what it said if it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    store, log = folder / "store", folder / "submit.log"
    env = submits.environment(folder, site=site)
    began = time.monotonic()
    submit = submits.start(experiment, file, cluster=cluster, sets=(), env=env, log=log)
    try:
        code = submit.process.wait()
    finally:
        end_all(folder)
    if code != 0:
        tail = "\n".join(submit.text().splitlines()[-20:])
        raise StxError(f"the undisturbed run ended with exit code {code}", where=str(log), hint=tail)
    return taken(store, experiment=experiment, seconds=time.monotonic() - began)


def taken(store: Path, *, experiment: str, seconds: float = 0.0) -> Untouched:
    """A store in which the experiment is finished."""
    folders = compare.stage_folders(store, compare.graph(store, experiment))
    names = sorted({path.name for paths in folders.values() for path in paths})
    return Untouched(store, experiment, compare.digests(store, names), seconds)


def begin_with(store: Path, *, source: Untouched, stages: Sequence[str]) -> None:
    """Copy the directories of these stages, without the marks of who wanted them."""
    folders = compare.stage_folders(source.store, compare.graph(source.store, source.experiment))
    for stage in stages:
        for path in folders[stage]:
            shutil.copytree(path, store / "stages" / path.name, ignore=shutil.ignore_patterns("wanted_by"))
