"""Weights & Biases: one W&B run for each stage that has numbers, steps in images seen.

A stage has the same W&B run for ever (its id is made of experiment and key), and W&B takes only steps that rise. What
was sent is noted in the experiment's folder, so exporting again sends what is new and nothing twice. With
WANDB_MODE=offline nothing is sent: W&B keeps the runs in a folder, for `wandb sync`.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs import files
from stx import records
from stx.errors import BackendError, ConfigError, install
from stx.export.runs import Row, Run

SENT = "wandb.json"


@dataclass(frozen=True)
class Sent:
    """One run: how many rows were sent now, and how many came too late, below a step that was sent before."""

    name: str
    rows: int
    late: int


def send(runs: Iterable[Run], folder: Path, *, experiment: str, project: str) -> list[Sent]:
    """Send what is new. `folder` holds the note of what was sent, and W&B's own files."""
    try:
        import wandb
    except ImportError as error:
        raise ConfigError("the library wandb is not installed", where="--wandb", hint=install("export")) from error
    files.make_dir(folder)
    note = folder / SENT
    found = []
    try:
        for run in runs:
            name = _identity(run, experiment=experiment, project=project)
            sent = (records.find(note) or {}).get(name, [])
            fresh = [row for row in run.rows if row.images not in sent]
            rising = [row for row in fresh if row.images > max(sent, default=-1)]
            if rising:
                _send(wandb, run, rising, name=name, project=project, experiment=experiment, folder=folder)
                done = sorted({*sent, *(row.images for row in rising)})
                records.write(note, (records.find(note) or {}) | {name: done})
            found.append(Sent(run.name, len(rising), len(fresh) - len(rising)))
    except wandb.Error as error:
        raise BackendError(
            f"W&B refuses: {error}",
            where=f"--wandb, project {project}",
            hint="`wandb login` first; or WANDB_MODE=offline, and `wandb sync` later",
        ) from error
    finally:
        wandb.teardown()
    return found


def _identity(run: Run, *, experiment: str, project: str) -> str:
    return records.digest({"project": project, "experiment": experiment, "key": run.key})[:16]


def _send(wandb: Any, run: Run, rows: list[Row], *, name: str, project: str, experiment: str, folder: Path) -> None:
    settings = wandb.Settings(console="off", silent=True, x_disable_stats=True, x_disable_meta=True)
    with wandb.init(
        project=project,
        id=name,
        name=run.name,
        group=run.stage,
        job_type=run.kind,
        tags=[experiment],
        config={"experiment": experiment, "key": run.key, **run.options},
        dir=os.fspath(folder),
        resume="allow",
        settings=settings,
    ) as opened:
        opened.define_metric("images")
        opened.define_metric("*", step_metric="images")
        for row in rows:
            opened.log({"images": row.images, **row.values}, step=row.images)
