"""Which layout of the cluster file's list an attempt takes.

The first that the launcher could ever grant. An attempt that ended for want of memory passes its layout over: the next
one in the list follows, and the last one stays. Everything is forgotten by `stx retry`, and by a change of what the
cluster file says of that layout: a layout that has changed was not tried yet.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.spec import Cause, JobSpec, Resources
from stx import named, records
from stx.config.cluster import Cluster
from stx.endings import ending, num_ranks
from stx.paths import StageDir
from stx.spec import Node


@dataclass(frozen=True)
class Option:
    """One layout of the list, and the job that an attempt in it would be."""

    layout: Mapping[str, Any]
    job: JobSpec

    @property
    def size(self) -> tuple[Mapping[str, Any], float]:
        """What decides whether its memory is enough."""
        return self.layout, self.job.resources.mem_gb


@dataclass(frozen=True)
class Choice:
    """What is taken: its number in the list, from 0. `passed`: why not those before it."""

    number: int
    option: Option
    passed: tuple[str, ...]

    @property
    def ranks(self) -> int:
        """World size."""
        return self.option.job.resources.ranks


def planned(node: Node, cluster: Cluster) -> list[Option]:
    """The layouts of a stage at plan time, to ask a launcher about: their jobs lie nowhere."""
    kind, nowhere = named.load("stx.stages", node.spec.kind), Path("/")
    common = {"cluster": cluster, "tag": "plan", "attempt_dir": nowhere, "python": sys.executable, "code": nowhere}
    return [Option(layout, kind.job(node, layout=layout, **common)) for layout in kind.layouts(node, cluster)]


def choose(
    options: Sequence[Option], *, refusal: Callable[[Resources], str | None], stage: StageDir | None = None
) -> Choice:
    """The layout to take; `stage` is where attempts may have ended already. Where none could ever be granted it is the
    first, and the scheduler says what is wrong with it.
    """
    refused = [refusal(one.job.resources) for one in options] if len(options) > 1 else [None]
    short = out_of_memory(stage) if stage is not None and len(options) > 1 else []
    passed = [
        why or ("an attempt ran out of memory" if one.size in short else "")
        for one, why in zip(options, refused, strict=True)
    ]
    granted = [number for number, why in enumerate(refused) if why is None]
    free = [number for number in granted if not passed[number]]
    chosen = (free or granted[-1:] or [0])[0]
    return Choice(chosen, options[chosen], passed=tuple(passed[:chosen]))


def out_of_memory(stage: StageDir) -> list[tuple[Mapping[str, Any], float]]:
    """The sizes of the attempts since the last `stx retry` that ended with the cause OOM."""
    since, found = max(stage.retries(), default=0), []
    for number in stage.attempts():
        attempt = stage.attempt(number)
        intent = records.find(attempt.intent) if number > since else None
        if intent is None:
            continue
        with records.understood(attempt.intent):
            size = intent["attempt"]["layout"], intent["job"]["resources"]["mem_gb"]
            ranks = num_ranks(intent)
        ended = ending(attempt, number=number, ranks=ranks)
        if ended is not None and ended.cause == Cause.OOM:
            found.append(size)
    return found
