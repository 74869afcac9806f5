"""What a store holds against what it must hold, and what the run cost, read from the store itself."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.files import AttemptDir
from stx import records
from stx.errors import StoreError
from stx.paths import StageDir, Store
from stx.report import history
from stx.spec import Graph


@dataclass(frozen=True)
class Difference:
    """Results by their path in the store: those that are missing, and those that are not what they must be."""

    lost: tuple[str, ...]
    wrong: tuple[str, ...]


def graph(store: Path, experiment: str) -> Graph:
    """The graph of an experiment as it was submitted."""
    return Graph.parse(records.read(Store(store).experiment(experiment).graph))


def stage_folders(store: Path, planned: Graph) -> dict[str, list[Path]]:
    """The stage directories of a graph, by the name of the stage in the experiment file."""
    found: dict[str, list[Path]] = {}
    for node in planned.nodes:
        folder = Store(store).stage(node.spec.kind, node.key).path
        if folder not in found.setdefault(node.stage, []):
            found[node.stage].append(folder)
    return found


def digests(store: Path, folders: Iterable[str]) -> dict[str, str]:
    """Payload digest of every result in these stage directories, by its path in the store."""
    found = {}
    for folder in folders:
        for path in sorted((store / "stages" / folder).rglob("artifact.json")):
            found[str(path.parent.relative_to(store))] = str(records.read(path)["digest"])
    return found


def differences(store: Path, expected: Mapping[str, str]) -> Difference:
    """Compare a store with the digests of the untouched run: the records, and the bytes of every payload file."""
    lost, wrong = [], []
    for name, digest in expected.items():
        folder = store / name
        if not (folder / "artifact.json").exists():
            lost.append(name)
            continue
        try:
            record = records.read(folder / "artifact.json")
            same = record["digest"] == digest == records.digest(record["files"])
        except (StoreError, KeyError):
            same = False
        if not same or any(not _holds(folder, file, sha256) for file, sha256 in record["files"].items()):
            wrong.append(name)
    return Difference(tuple(lost), tuple(wrong))


def _holds(folder: Path, name: str, sha256: str) -> bool:
    """Payload files lie beside artifact.json, or for kinds that do not grow in payload/."""
    path = folder / name if (folder / name).exists() else folder / "payload" / name
    return path.exists() and records.file_digest(path) == sha256


def attempts(store: Path) -> Iterator[AttemptDir]:
    """Every attempt that was claimed."""
    for path in sorted(store.glob("stages/*/attempts/*.intent.json")):
        yield AttemptDir(path.with_name(path.name.removesuffix(".intent.json")))


def recomputed(store: Path) -> int:
    """Images that were trained more than once, as far as the attempts that left a word counted them."""
    stages = [StageDir(path) for path in sorted(store.glob("stages/train-*"))]
    return sum(attempt.recomputed_images for stage in stages for attempt in history.attempts(stage))


def failures(attempt: AttemptDir) -> list[tuple[str, str]]:
    """(cause, message) of each rank that failed, and of a verdict that says so."""
    found = []
    for path in [*attempt.outcomes(), attempt.verdict]:
        try:
            record = json.loads(path.read_bytes())
            if record["cause"]:
                found.append((str(record["cause"]), str(record["message"])))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not there, or damaged on purpose
    return found


def was_cancelled(attempt: AttemptDir) -> bool:
    """Whether a coordinator ended it, or it ended itself, because it was taken to hang."""
    if any(cause == "HANG" for cause, _ in failures(attempt)):
        return True
    try:
        return bool(json.loads(attempt.stop.read_bytes()).get("cancel"))
    except (OSError, ValueError):
        return False
