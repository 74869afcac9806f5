"""`stx submit` as a person starts it: in a session of its own, its words in a file."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.chaos.processes import MARK
from tools.chaos.site import DevCluster

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Submit:
    """One submit that was started; `code` is None while it runs."""

    experiment: str
    log: Path
    process: "subprocess.Popen[bytes]"

    @property
    def code(self) -> int | None:
        """Its exit code, negative for a signal."""
        return self.process.poll()

    @property
    def was_ended(self) -> bool:
        """Whether a signal ended it, or asked it to end."""
        return self.code in (-signal.SIGKILL, -signal.SIGTERM, 130)

    def text(self) -> str:
        """Everything it said."""
        return self.log.read_text(errors="replace")


def environment(folder: Path, *, site: DevCluster | None = None) -> dict[str, str]:
    """For programs that work on the store of this folder, with slots that no other experiment of this machine shares,
    and with the folder as their mark.
    """
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {"STX_STORE": str(folder / "store"), "STX_SLOTS": str(folder / "slots"), MARK: str(folder)}
    own |= {"SLURM_CONF": str(site.conf)} if site else {}
    return {**os.environ, **own, "PYTHONPATH": path, "NO_COLOR": "1"}


def start(
    experiment: str, file: Path, *, cluster: str, sets: Sequence[str], env: Mapping[str, str], log: Path
) -> Submit:
    """Submit a file."""
    flags = [word for one in sets for word in ("--set", one)]
    argv = [sys.executable, "-m", "stx.cli", "submit", str(file), "--cluster", cluster, "--foreground", *flags]
    return Submit(experiment, log, _start(argv, env=env, log=log))


def retry(*, env: Mapping[str, str], log: Path) -> None:
    """Say retry to all that failed, as a person does who has mended the cause."""
    argv = [sys.executable, "-m", "stx.cli", "retry", "*"]
    _start(argv, env=env, log=log).wait(timeout=600)


def _start(argv: Sequence[str], *, env: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as stream:
        return subprocess.Popen(
            argv, env=dict(env), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
        )
