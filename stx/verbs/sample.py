"""`stx sample`: a grid of images from one finished milestone of a run, at once and beside all stages.

A child process of the worker's makes it, so that torch is not imported here; nothing is written but the picture.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stx
from stx import records
from stx.config import schema
from stx.errors import ConfigError, DataError, StxError
from stx.named import unknown
from stx.paths import IMAGES_INFO, StageDir, Store
from stx.report.words import plural
from stx.spec import Node, StageSpec
from stx.stages.sample import Sampler, check_sampler
from stx.verbs import console
from stx.verbs.refuse import path_with
from stx.verbs.select import Chosen, choose_one, existing_store

WIDEST = 16  # columns, as long as labels are given one by one
EVERY = "all"
FLAGS = {"guidance": "--cfg"}  # where the flag is not called like the option


@dataclass(frozen=True)
class Wishes:
    """The command line. None: not given."""

    run: str
    labels: str
    sampler: Mapping[str, Any]
    at: int | None
    num: int | None
    seed: int
    output: Path | None
    store: str | None
    as_json: bool


def run(wishes: Wishes) -> None:
    """The verb `sample`: prints the picture's path; how it was made goes to stderr, or all of it as JSON."""
    request = request_of(wishes, store=existing_store(wishes.store))
    replaced = Path(request["output"]).exists()
    make(request)
    if wishes.as_json:
        console.out_json({"file": request["output"], "protocol": request["protocol"]})
        return
    for line in told(request["protocol"]):
        console.say(line)
    if replaced:
        console.say("it takes the place of an older picture of that name; -o gives another one")
    console.out(request["output"])


def request_of(wishes: Wishes, *, store: Store) -> dict[str, Any]:
    """What the worker is asked for. ConfigError for everything that can be refused without it."""
    sampler = sampler_of(wishes.sampler)
    owner, node = _train_node(store, wishes.run)
    stage = store.stage("train", node.key)
    images = milestone(node, stage, at=wishes.at)
    decoder, class_names = lineage(store, node)
    labels = labels_of(wishes.labels, class_names=class_names)
    num = len(labels) if wishes.num is None else wishes.num
    for flag, value, least in (("--num", num, 1), ("--seed", wishes.seed, 0)):
        if value < least:
            raise ConfigError(f"must be at least {least}", where=f"{flag} {value}")
    chosen = [labels[row % len(labels)] for row in range(num)]
    protocol = {
        "run": node.name,
        "key": node.key,
        "step": images // node.spec.science["global_batch"],
        "images": images,
        "weights": "ema",
        "labels": chosen,
        "classes": [class_names[label] for label in chosen],
        "seed": wishes.seed,
        **sampler,
    }
    return {
        "milestone": str(stage.part("train", images).path),
        "autoencoder": str(decoder.path),
        "shape": node.where["shape"],
        "interpolant": node.spec.science.get("interpolant", "linear"),
        "columns": columns(len(labels), num=num),
        "output": str(_output(wishes.output, named=file_name(owner.experiment, protocol))),
        "protocol": protocol,
    }


def sampler_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a sample stage's sampler, with their defaults. What can have no effect is refused."""
    if given.get("interval") is not None and given.get("guidance") in (None, 1):
        raise ConfigError(
            "an interval says where guidance acts, and there is none",
            where=f"--interval {_typed(given['interval'])}",
            hint="give --cfg, for example --cfg 4",
        )
    found = schema.validate(Sampler, {name: value for name, value in given.items() if value is not None})
    problems = found if isinstance(found, list) else check_sampler(found)
    if problems:
        name = str(problems[0].path[-1])
        flag = FLAGS.get(name, f"--{name}")
        raise ConfigError(problems[0].what, where=f"{flag} {_typed(given[name])}", hint=problems[0].hint)
    assert isinstance(found, Sampler), "no problems"
    return schema.science_of(found)


def interval_of(text: str | None) -> list[float] | None:
    """LOW,HIGH as numbers; whether they are a window is the option's to say."""
    if text is None:
        return None
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise ConfigError("is not LOW,HIGH", where=f"--interval {text}", hint="for example --interval 0,0.65") from None


def _typed(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)


def _train_node(store: Store, pattern: str) -> tuple[Chosen, Node]:
    chosen, node = choose_one(store, pattern, fit=lambda node: node.spec.kind == "train")
    if node.spec.kind != "train":
        runs = dict.fromkeys(one.name for one in chosen.graph.nodes if one.spec.kind == "train")
        raise ConfigError(
            f"{node.name} is of kind {node.spec.kind}: only the milestones of a train stage can be sampled from",
            hint=f"runs of {chosen.experiment}: {', '.join(runs) or 'none'}",
        )
    return chosen, node


def milestone(node: Node, stage: StageDir, *, at: int | None) -> int:
    """The images seen of the milestone at that step; of the newest one without a step."""
    batch, finished = node.spec.science["global_batch"], stage.parts("train")
    if not finished:
        raise ConfigError(
            f"{node.name} has no finished milestone yet",
            hint=f"the first one is at step {min(node.wants) // batch}; `stx status` says how far it is",
        )
    if at is not None and at * batch not in finished:
        steps = ", ".join(str(images // batch) for images in finished)
        raise ConfigError(
            f"{node.name} has no finished milestone at that step", where=f"--at {at}", hint=f"finished: {steps}"
        )
    return finished[-1] if at is None else at * batch


def lineage(store: Store, node: Node) -> tuple[StageDir, tuple[str, ...]]:
    """The decoder behind a run and the names of its classes, by the keys in the records of the store."""
    record = store.stage("latents", node.spec.inputs["latents"].key).record
    with records.understood(record):
        inputs = StageSpec.parse(records.read(record)).inputs
        pictures, decoder = (store.stage(kind, inputs[kind].key) for kind in ("images", "autoencoder"))
    info = pictures.payload / IMAGES_INFO
    with records.understood(info):
        return decoder, tuple(records.read(info)["class_names"])


def labels_of(text: str, *, class_names: Sequence[str]) -> list[int]:
    """Labels by class name or by number; `all` is one of each class."""
    if text == EVERY:
        return list(range(len(class_names)))
    return [_label(word.strip(), class_names=class_names) for word in text.split(",")]


def _label(word: str, *, class_names: Sequence[str]) -> int:
    if word in class_names:
        return class_names.index(word)
    if word.isdecimal() and int(word) < len(class_names):
        return int(word)
    error = unknown(word, list(class_names), what=f'no class "{word}"')
    last = len(class_names) - 1
    known = f"labels are 0..{last}, or class names: {', '.join(class_names[:10])}{', ...' if last > 9 else ''}"
    did_you_mean = "" if word.isdecimal() else str(error.hint).partition("known: ")[0]
    raise ConfigError(error.what, where=f"--labels {word}", hint=f"{did_you_mean}{known}; or all")


def columns(labels: int, *, num: int) -> int:
    """Of the grid: one for each label where there are few, else a square."""
    return min(labels, num) if labels <= WIDEST else max(1, round(num**0.5))


def file_name(experiment: str, protocol: Mapping[str, Any]) -> str:
    """EXPERIMENT-RUN-IMAGES.png, with guidance EXPERIMENT-RUN-IMAGES-cfgW.png."""
    guided = f"-cfg{protocol['guidance']:g}" if protocol["guidance"] != 1 else ""
    run = protocol["run"].replace(":", "-").replace("/", "-")
    return f"{experiment}-{run}-{protocol['images']}{guided}.png"


def _output(given: Path | None, *, named: str) -> Path:
    path = Path(named) if given is None else given
    if path.suffix.lower() != ".png":
        raise ConfigError("the picture is a PNG", where=f"-o {path}", hint=f"for example {path.with_suffix('.png')}")
    if not path.absolute().parent.is_dir():
        raise ConfigError("no such folder", where=f"-o {path}")
    return path


def make(request: Mapping[str, Any]) -> None:
    """Let the worker make it. Its progress goes to our stderr; what it refuses is raised here."""
    argv = [sys.executable, "-m", "stx.worker", "sample"]
    env = os.environ | {"PYTHONPATH": path_with(Path(stx.__file__).parent.parent)}
    # In a session of its own: an interrupt is ours to answer, and subprocess.run then ends the child.
    done = subprocess.run(
        argv, input=json.dumps(request), env=env, stdout=subprocess.PIPE, text=True, check=False, start_new_session=True
    )
    if done.returncode == 0:
        return
    try:
        said = json.loads(done.stdout)
        kind = DataError if said["exit_code"] == DataError.exit_code else ConfigError
        raise kind(said["what"], where=said["where"], hint=said["hint"])
    except (ValueError, KeyError, TypeError):
        raise StxError(f"the sampling process ended with exit code {done.returncode}") from None


def told(protocol: Mapping[str, Any]) -> list[str]:
    """How the picture was made, in two lines."""
    guided = f"cfg {protocol['guidance']:g}"
    if protocol["guidance"] != 1:
        guided += " on t in [{:g}, {:g}]".format(*protocol["interval"])
    shown = list(dict.fromkeys(protocol["classes"]))
    more = f", ... ({len(shown):,} classes)" if len(shown) > WIDEST else ""
    how = (
        f"{protocol['run']} at step {protocol['step']:,} ({protocol['images']:,} images seen), "
        f"{protocol['weights']} weights, {protocol['solver']} with {plural(protocol['steps'], 'step')}, {guided}, "
        f"seed {protocol['seed']}"
    )
    return [how, f"{plural(len(protocol['labels']), 'image')} of {', '.join(shown[:WIDEST])}{more}"]
