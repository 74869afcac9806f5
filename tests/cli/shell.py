"""Runs `stx` as people and scripts do: real processes, real stores, experiments of `command` stages."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stx.paths import Store

ROOT = Path(__file__).resolve().parents[2]
CHAIN = """
name: chain
stages:
  first: {kind: command, argv: [sh, -c, "echo one; echo 1 > $STX_OUTPUT/x"]}
  second:
    kind: command
    argv: [sh, -c, "cat $STX_INPUT_FIRST/x > $STX_OUTPUT/y"]
    inputs: {first: first}
    sweep: {seed: [0, 1]}
"""
# Runs until GO exists; saves (makes SAVED) and yields when asked to.
SLOW = """
name: slow
stages:
  slow:
    kind: command
    argv:
      - sh
      - -c
      - |
        trap 'touch SAVED; exit 75' USR2 TERM
        echo begun
        for i in $(seq 300); do test -e GO && break; sleep 0.1; done
        touch $STX_OUTPUT/x
"""
FAILING = """
name: failing
stages:
  bad: {kind: command, argv: [sh, -c, "echo the reason is here; test -e GO && touch $STX_OUTPUT/x"]}
  after: {kind: command, argv: [sh, -c, "touch $STX_OUTPUT/x"], inputs: {bad: bad}}
  other: {kind: command, argv: [sh, -c, "touch $STX_OUTPUT/x"]}
"""


class Shell:
    """Runs stx in a folder with a store and slots of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "store")
        scrubbed = {name: value for name, value in os.environ.items() if not name.startswith("STX_")}
        self.env = scrubbed | {
            "PYTHONPATH": str(ROOT),
            "STX_STORE": str(self.store.root),
            "STX_SLOTS": str(folder / "slots"),
            "STX_CORES": "2",
            "NO_COLOR": "1",
        }

    def write(self, text: str, name: str = "e.yaml") -> Path:
        """An experiment file; GO stands for a file in this folder."""
        path = self.folder / name
        path.write_text(text.replace("GO", str(self.folder / "go")).replace("SAVED", str(self.folder / "saved")))
        return path

    def __call__(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "stx.cli", *arguments],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "stx.cli", *arguments],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def json(self, *arguments: str) -> Any:
        answer = json.loads(self(*arguments, "--json").stdout)
        assert answer["schema"] == 1
        return answer

    def states(self, experiment: str) -> dict[str, str]:
        (one,) = self.json("status", experiment)["experiments"]
        return {stage["name"]: stage["state"] for stage in one["stages"]}

    def log_says(self, text: str) -> bool:
        return any(text in path.read_text() for path in self.store.stages.glob("*/attempts/*/rank-0.log"))


def wait_until(true: Callable[[], bool], *, seconds: float = 30.0) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.05)
