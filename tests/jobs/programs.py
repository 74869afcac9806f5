"""Jobs of a few lines of Python, run by a real `python -m jobs.exec`."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from jobs import contract, outcome, supervisor
from jobs.files import AttemptDir
from jobs.outcome import Outcome
from jobs.spec import JobSpec, Resources

ROOT = str(Path(supervisor.__file__).parent.parent)


def prepare(folder: Path, program: str, *, ranks: int = 1, **changes: object) -> AttemptDir:
    """An attempt whose ranks run a few lines of Python."""
    spec = JobSpec(
        **{
            "tag": "stx-test",
            "argv": (sys.executable, "-P", "-c", program),
            "attempt_dir": folder / "001",
            "cwd": folder,
            "resources": Resources(ranks_per_node=ranks),
            "env": {"PYTHONPATH": ROOT},
            **changes,
        }
    )
    attempt = AttemptDir(spec.attempt_dir)
    attempt.intent.write_text(json.dumps({"job": spec.dump()}))
    attempt.path.mkdir()
    return attempt


def start(attempt: AttemptDir, *options: str, env: Mapping[str, str] | None = None) -> "subprocess.Popen[bytes]":
    """Its supervisor, in a session of its own, with the log that a launcher gives it."""
    with attempt.supervisor_log.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "jobs.exec", *options, str(attempt.path)],
            env={**os.environ, "PYTHONPATH": ROOT, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def run(attempt: AttemptDir, *options: str, env: Mapping[str, str] | None = None) -> int:
    """Start it and wait for its exit code."""
    return start(attempt, *options, env=env).wait(contract.PATIENCE_S)


def the_outcome(attempt: AttemptDir, rank: int = 0) -> Outcome:
    """What a rank said; it must have said something."""
    said = outcome.read(attempt, rank)
    assert said is not None, f"no outcome of rank {rank}\n{attempt.supervisor_log.read_text()}"
    return said


def pids(attempt: AttemptDir) -> list[int]:
    """Those of the ranks that have come alive, in order."""
    return [int(path.read_text()) for path in sorted(attempt.path.glob("alive-*"))]
