"""`stx export`: the curves and scores of an experiment for TensorBoard or Weights & Biases."""

import os
import shlex
from pathlib import Path

from stx.coordinator.prepare import writing
from stx.errors import ConfigError
from stx.export.runs import Run, runs
from stx.report.words import plural, size
from stx.verbs import console
from stx.verbs.select import existing_store, load_graph, one_experiment

PROJECT = "stx"


def run(
    name: str, *, store: str | None, tensorboard: str | None, wandb: bool, project: str | None, as_json: bool
) -> None:
    """The verb `export`."""
    if tensorboard is None and not wandb:
        raise ConfigError(
            "nowhere to export to", where=f"stx export {name}", hint="give --tensorboard DIR, --wandb, or both"
        )
    if project is not None and not wandb:
        raise ConfigError(
            "a project is one of Weights & Biases", where=f"--project {project}", hint="add --wandb, or leave it out"
        )
    if tensorboard == "":
        raise ConfigError("no folder is named", where="--tensorboard ''", hint="for example --tensorboard runs")
    place = existing_store(store)
    experiment = one_experiment(place, name)
    found = list(runs(place, load_graph(experiment)))
    answer: dict[str, object] = {"experiment": name, "runs": len(found), "rows": sum(len(one.rows) for one in found)}
    if not found:
        console.say(f"{name} has no numbers yet: nothing is exported")
    if found and tensorboard is not None:
        answer["tensorboard"] = _tensorboard(found, Path(tensorboard) / name, as_json=as_json)
    if found and wandb:
        answer["wandb"] = _wandb(found, experiment.export, name, project=project or PROJECT, as_json=as_json)
    if as_json:
        console.out_json(answer)


def _tensorboard(found: list[Run], folder: Path, *, as_json: bool) -> str:
    from stx.export import tensorboard

    with writing(folder, flag="--tensorboard"):
        written = tensorboard.write(found, folder)
    total = sum(one.bytes for one in written)
    console.say(
        f"{plural(len(written), 'run')}, {plural(sum(one.rows for one in written), 'row')}: {size(total)} written"
    )
    if not as_json:
        console.out(os.fspath(folder))
        console.next_commands(f"tensorboard --logdir {shlex.quote(os.fspath(folder.parent))}")
    return os.fspath(folder)


def _wandb(found: list[Run], folder: Path, name: str, *, project: str, as_json: bool) -> str:
    from stx.export import wandb

    with writing(folder):
        sent = wandb.send(found, folder, experiment=name, project=project)
    fresh, late = sum(one.rows for one in sent), sum(one.late for one in sent)
    console.say(f"{plural(len(sent), 'run')} of project {project}: {plural(fresh, 'row')} sent")
    if late:
        console.say(f"{plural(late, 'row')} below a step that was sent before: W&B takes only steps that rise")
    if not as_json:
        console.out(os.fspath(folder))
        if os.environ.get("WANDB_MODE") == "offline":
            console.next_commands(f"wandb sync {shlex.quote(os.fspath(folder))}/wandb/offline-run-*")
    return os.fspath(folder)
