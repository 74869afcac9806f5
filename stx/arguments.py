"""Arguments and options that several verbs of the command line have, each with its one help text."""

from pathlib import Path
from typing import Annotated

import typer

Store = Annotated[
    str | None, typer.Option("--store", help="The store's folder. Else $STX_STORE, the cluster file's, ./stx-store.")
]
Cluster = Annotated[
    str | None, typer.Option("--cluster", help="A cluster file or a built-in's name. Else $STX_CLUSTER, local.")
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="Change one value: --set stages.phase2.steps=100 (repeatable).")
]
Json = Annotated[bool, typer.Option("--json", help="The answer as JSON with a schema number.")]
Every = Annotated[bool, typer.Option("--all", help="Never fold the points of a large sweep.")]
File = Annotated[Path, typer.Argument(help="The experiment file.", show_default=False)]
Pattern = Annotated[
    str | None,
    typer.Argument(help="An experiment, a stage, a sweep point, a key's first 4+ digits, a glob, or EXPERIMENT/STAGE."),
]
Stage = Annotated[str, typer.Argument(help="A stage, a sweep point, a key's first 4+ digits, or EXPERIMENT/STAGE.")]
Stages = Annotated[
    str,
    typer.Argument(help="An experiment, a stage, a sweep point, a key's first 4+ digits, a glob, or EXPERIMENT/STAGE."),
]
