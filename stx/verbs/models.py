"""Whether the networks of an experiment can be built: the worker tries on the meta device, in a child, so that torch is
not imported here.

What was accepted once by the same sources and the same packages is not built again: an empty file beside the copy of
the sources remembers it. Nothing refused is remembered.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from stx import plan, records
from stx.coordinator.snapshot import Code
from stx.errors import PlanError
from stx.plan import PlanLine
from stx.spec import Graph
from stx.verbs.refuse import path_with

CHECK_LIMIT_S = 300
BUILT_WITH = ("torch", "timm")


def check(graph: Graph, lines: Sequence[PlanLine], *, code: Code) -> None:
    """PlanError, in the worker's words, for the first network that is still to be trained and cannot be built."""
    todo = {line.node.key for line in lines if line.node.spec.kind == "train" and str(line.verb) != "cached"}
    nodes = tuple(node for node in graph.nodes if node.key in todo)
    shapes = {_mark(code, shape): shape for shape in plan.shapes(Graph(graph.experiment, nodes))}
    unknown = {mark: shape for mark, shape in shapes.items() if not os.path.lexists(mark)}
    if not unknown:
        return
    argv = [sys.executable, "-m", "stx.worker", "check"]
    env = os.environ | {"PYTHONPATH": path_with(code.path)}
    said = json.dumps(list(unknown.values()))
    done = subprocess.run(argv, input=said, env=env, capture_output=True, text=True, timeout=CHECK_LIMIT_S, check=False)
    if done.returncode != 0:
        raise refused(done.returncode, out=done.stdout, err=done.stderr)
    for mark in unknown:
        _remember(mark)


def refused(code: int, *, out: str, err: str) -> PlanError:
    """What the worker refused, in its own words: one JSON object with where, what and hint on its standard output."""
    try:
        said = json.loads(out)
        return PlanError(said["what"], where=said["where"], hint=said["hint"])
    except (ValueError, KeyError, TypeError):
        tail = "\n    ".join(err.strip().splitlines()[-20:])
        return PlanError(f"the check of the models ended with exit code {code}", hint=tail or None)


def _mark(code: Code, shape: Mapping[str, Any]) -> Path:
    versions = {name: metadata.version(name) for name in BUILT_WITH}
    return code.path / f"accepted-{records.digest({'shape': shape, 'versions': versions})[:16]}"


def _remember(mark: Path) -> None:
    """Only its owner may write to a copy of the sources: what lies there is believed. Not remembering costs seconds."""
    try:
        os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
    except OSError:  # root's copy, a full disk
        return
