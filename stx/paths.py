"""The names in a store. The only module that spells them (jobs.files.AttemptDir spells those inside an attempt).

<store>/store.json
<store>/stages/<kind>-<key12>/{stage.json,wanted_by,attempts,retries,fingerprints,checkpoints,payload,artifact.json,milestones,parts}
<store>/experiments/<name>/{user.json,experiment.yaml,graph.json,events-<token>.jsonl,lease,inbox,notices,report,
                            coordinator.json,coordinator.log,cluster}
<store>/code/<digest>/
<store>/pins/<kind>-<key12>.json
<store>/nodes/<node>-<tag>.json
<store>/ray/<cluster>.json, <store>/ray/<cluster>/NNN/ (jobs/launchers/ray/up/folder.py)
<store>/trash/<id>/{origin,content}
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs import files
from jobs.files import AttemptDir
from stx import records

KEY_DIGITS = 12

# Payload files that more than their own stage kind reads.
IMAGES_INFO = "images.json"
WEIGHTS = "weights.safetensors"
LABELS = "labels.npy"
SCORES = "scores.json"

# What the names of tensors in WEIGHTS begin with: the weights themselves, and the first of their EMAs.
RAW, EMA = "raw", "ema"

CHECKPOINT = re.compile(r"(\d+)-(\d+)")  # <images>-<attempt>
_INTENT = re.compile(r"(\d+)\.intent\.json")
_EVENTS = re.compile(r"events-(\d+)\.jsonl")


def ema_sections(ema_decay: float | Sequence[float]) -> dict[float, str]:
    """What the EMA of each decay of a run is called in its checkpoints and WEIGHTS: ema, ema_<second decay>, ..."""
    first, *others = [ema_decay] if isinstance(ema_decay, int | float) else ema_decay
    return {first: EMA} | {decay: f"{EMA}_{decay}" for decay in others}


@dataclass(frozen=True)
class PartDir:
    """One published result: payload files and, last, their artifact.json."""

    path: Path

    @property
    def artifact(self) -> Path:
        """Digests of the payload files; its existence means: finished."""
        return self.path / "artifact.json"


@dataclass(frozen=True)
class StageDir:
    """stages/<kind>-<key12>: everything there is about one key."""

    path: Path

    @property
    def record(self) -> Path:
        """stage.json: what is hashed, published once."""
        return self.path / "stage.json"

    @property
    def wanted_by(self) -> Path:
        """One mark per experiment."""
        return self.path / "wanted_by"

    def mark(self, experiment: str) -> Path:
        """Who wants it and, for growing kinds, at which images-seen counts."""
        return self.wanted_by / f"{experiment}.json"

    def attempt(self, number: int) -> AttemptDir:
        """attempts/NNN."""
        return AttemptDir(self.path / "attempts" / f"{number:03d}")

    def attempts(self) -> list[int]:
        """The numbers that were claimed, ascending: a claim is attempts/NNN.intent.json."""
        return _numbers(self.path / "attempts", _INTENT)

    def retry(self, number: int) -> Path:
        """retries/NNN: a human's `stx retry`; budgets count attempts above it."""
        return self.path / "retries" / f"{number:03d}"

    def retries(self) -> list[int]:
        """The attempt numbers after which a retry was asked for, ascending."""
        return _numbers(self.path / "retries", re.compile(r"(\d+)"))

    def fingerprint(self, name: str) -> Path:
        """What an external input looked like when the stage first ran."""
        return self.path / "fingerprints" / f"{name}.json"

    @property
    def checkpoints(self) -> Path:
        """checkpoints/<images>-<attempt>/, complete when it bears this name."""
        return self.path / "checkpoints"

    def saved(self) -> list[int]:
        """The images-seen counts that have a complete checkpoint, ascending."""
        return sorted(set(_numbers(self.checkpoints, CHECKPOINT)))

    def newest_checkpoint(self) -> Path | None:
        """The folder of the complete checkpoint with the most images seen, of the last attempt that saved there."""
        named = {self.checkpoints / name: CHECKPOINT.fullmatch(name) for name in records.names(self.checkpoints)}
        complete = {path: (int(match[1]), int(match[2])) for path, match in named.items() if match}
        return max(complete, key=lambda path: complete[path], default=None)

    def refuse_links(self) -> None:
        """StoreError for a symbolic link where a worker reads or writes: once per attempt, not per read."""
        with records.no_links():
            there = files.names(self.path)
            for name in {"attempts", "wanted_by", "fingerprints"}.intersection(there):
                files.names(self.path / name)
            for name in {"checkpoints", "payload", "milestones", "parts"}.intersection(there):
                files.refuse_links(self.path / name)

    @property
    def result(self) -> PartDir:
        """The result of a kind that does not grow: payload/ and artifact.json."""
        return PartDir(self.path)

    @property
    def payload(self) -> Path:
        """The content files of a kind that does not grow."""
        return self.path / "payload"

    @property
    def output_kept(self) -> Path:
        """What a program of the user's left when it yielded: where its next run goes on."""
        return self.path / "output"

    @property
    def output_finished(self) -> Path:
        """The whole output of a program that ended well, until it is published."""
        return self.path / "output-finished"

    def part(self, kind: str, images: int) -> PartDir:
        """One result of a growing kind: milestones/<images> of a train stage, parts/<images> of the others."""
        return PartDir(self.path / parts_folder(kind) / str(images))

    def parts(self, kind: str) -> list[int]:
        """The images-seen counts whose result is finished, ascending."""
        folder = self.path / parts_folder(kind)
        found = _numbers(folder, re.compile(r"(\d+)"))
        return [images for images in found if PartDir(folder / str(images)).artifact.exists()]


def samples_file(number: int) -> str:
    """The file of one chunk of samples."""
    return f"samples-{number:05d}.npy"


def parts_folder(kind: str) -> str:
    """Where a growing kind keeps its results."""
    return "milestones" if kind == "train" else "parts"


@dataclass(frozen=True)
class ExperimentDir:
    """experiments/<name>: what one experiment file asked for, and who drives it."""

    path: Path

    @property
    def user(self) -> Path:
        """Whose experiment it is."""
        return self.path / "user.json"

    @property
    def file(self) -> Path:
        """The experiment as submitted."""
        return self.path / "experiment.yaml"

    @property
    def graph(self) -> Path:
        """The planned graph."""
        return self.path / "graph.json"

    def events(self, token: int) -> Path:
        """The journal that the holder of `token` wrote."""
        return self.path / f"events-{token}.jsonl"

    def tokens(self) -> list[int]:
        """The tokens that have a journal, ascending."""
        return _numbers(self.path, _EVENTS)

    @property
    def lease(self) -> Path:
        """lease/<N>: the highest N holds."""
        return self.path / "lease"

    @property
    def inbox(self) -> Path:
        """Commands to a running coordinator, one file each."""
        return self.path / "inbox"

    def notice(self, name: str) -> Path:
        """What the program of `on_event` was told."""
        return self.path / "notices" / f"{name}.json"

    @property
    def event_log(self) -> Path:
        """What the program of `on_event` printed, and how it failed."""
        return self.path / "on_event.log"

    @property
    def canary(self) -> Path:
        """Written again and again, to see whether the store can be written."""
        return self.path / ".canary"

    @property
    def report(self) -> Path:
        """The report's folder."""
        return self.path / "report"

    @property
    def export(self) -> Path:
        """What was exported to programs elsewhere, and their own files."""
        return self.path / "export"

    @property
    def coordinator(self) -> Path:
        """Which job is the coordinator, where it lives in one, or looks next."""
        return self.path / "coordinator.json"

    def cluster(self, name: str) -> Path:
        """The cluster file that such a job reads."""
        return self.path / "cluster" / f"{name}.yaml"

    @property
    def log(self) -> Path:
        """What a coordinator without a terminal prints."""
        return self.path / "coordinator.log"


@dataclass(frozen=True)
class Store:
    """The root of everything on disk."""

    root: Path

    @property
    def record(self) -> Path:
        """store.json: {id, format}, published once."""
        return self.root / "store.json"

    @property
    def stages(self) -> Path:
        """All stages of all experiments."""
        return self.root / "stages"

    def stage_names(self) -> list[str]:
        """The names of the stage directories, sorted."""
        return [name for name in records.names(self.stages) if not name.startswith(".")]

    def stage(self, kind: str, key: str) -> StageDir:
        """The directory of a key."""
        return StageDir(self.stages / f"{kind}-{key[:KEY_DIGITS]}")

    @property
    def experiments(self) -> Path:
        """All experiments by name."""
        return self.root / "experiments"

    def experiment_names(self) -> list[str]:
        """The experiments that have a graph, sorted."""
        names = records.names(self.experiments)
        return [name for name in names if not name.startswith(".") and self.experiment(name).graph.exists()]

    def experiment(self, name: str) -> ExperimentDir:
        """The directory of an experiment."""
        return ExperimentDir(self.experiments / name)

    @property
    def codes(self) -> Path:
        """All copies of sources."""
        return self.root / "code"

    def code(self, digest: str) -> Path:
        """The sources that attempts run from."""
        return self.codes / digest

    def ray(self, name: str) -> Path:
        """Where the Ray cluster of our own answers that a cluster file of this name has."""
        return self.root / "ray" / f"{name}.json"

    def ray_clusters(self, name: str) -> Path:
        """What was asked for and became of the Ray clusters of our own of a cluster file's name."""
        return self.root / "ray" / name

    @property
    def pins(self) -> Path:
        """One file for each stage that must stay, by its directory's name."""
        return self.root / "pins"

    def pin(self, name: str) -> Path:
        """The pin of the stage directory `name`."""
        return self.pins / f"{name}.json"

    @property
    def nodes(self) -> Path:
        """One file for each attempt that failed for a node."""
        return self.root / "nodes"

    def evidence(self, node: str, tag: str) -> Path:
        """What the attempt of `tag` says against a node."""
        return self.nodes / f"{node}-{tag}.json"

    @property
    def trash(self) -> Path:
        """What is on its way out: trash/<id>/{origin,content}, `<id>.doomed` once that is decided."""
        return self.root / "trash"


def _numbers(folder: Path, pattern: re.Pattern[str]) -> list[int]:
    return sorted(int(match[1]) for name in records.names(folder) if (match := pattern.fullmatch(name)))
