"""The coordinator's end of a Ray driver: starts the child, asks one question at a time, and notices its death. Standard
library only. jobs/launchers/ray/driver.py says what is asked.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jobs
from jobs.launcher import Refused

CONNECT_S = 60.0
ANSWER_S = 30.0  # a coordinator that waits longer may lose its lease
CLOSE_S = 5.0
TAIL_BYTES = 4096


class RayError(Refused):
    """A cluster that does not answer, or not as it should. Nothing is wrong with what it was asked: that was looked at
    by `refusal`.
    """


@dataclass(frozen=True)
class Where:
    """A cluster: the address of its GCS, `HOST:PORT`; the file with its token, where that is not Ray's own; and the
    command through which the driver is started, where this machine is no node of it.
    """

    address: str
    token: str = ""
    via: tuple[str, ...] = ()


class Line:
    """One driver, connected; RayError where that fails. `session`: Ray's name of the cluster, which no other has;
    `about`: what people see of it in Ray's dashboard.
    """

    def __init__(self, where: Where, *, about: Mapping[str, str]) -> None:
        self._where = where
        self._rest = b""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the child
        self._child = subprocess.Popen(
            command(where),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C is for us
        )
        assert self._child.stdin is not None and self._child.stdout is not None, "both are pipes"
        self._input, self._output = self._child.stdin, self._child.stdout
        try:
            self.session: str = self._exchange({"address": where.address, "about": dict(about)}, within_s=CONNECT_S)
        except RayError:
            self.close()
            raise

    def ask(self, question: str, **about: Any) -> Any:
        """The answer; RayError when there is none, after which this line is dead, or when Ray refuses."""
        return self._exchange({"ask": question, **about}, within_s=ANSWER_S)

    def close(self) -> str:
        """End the child, and wait for that; the last line that it printed on its way out, at the first time."""
        if self._output.closed:
            return ""
        with contextlib.suppress(OSError):
            self._input.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(CLOSE_S)
        self._child.kill()
        self._child.wait()
        self._output.close()
        with self._errors:
            size = self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, size - TAIL_BYTES))
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    def _exchange(self, question: Mapping[str, Any], *, within_s: float) -> Any:
        try:
            self._input.write(json.dumps(question).encode() + b"\n")
            self._input.flush()
            answer = json.loads(self._read_line(time.monotonic() + within_s))
        except (OSError, ValueError) as error:
            what = "the driver has ended" if isinstance(error, ConnectionError) else str(error)
            raise RayError(f"Ray at {self._where.address}: {what}: {self.close()}", later=True) from error
        if "error" in answer:
            raise RayError(f"Ray at {self._where.address}: {answer['error']}", later=True)
        return answer["said"]

    def _read_line(self, deadline: float) -> bytes:
        """TimeoutError or ConnectionError where none comes."""
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._output], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError("the driver does not answer")
            if not (data := os.read(self._output.fileno(), 1 << 16)):
                raise ConnectionError
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line


def command(where: Where) -> list[str]:
    """The driver's command line: from these sources, and with the cluster's token."""
    environment = {"PYTHONPATH": str(Path(jobs.__file__).parent.parent), "RAY_USAGE_STATS_ENABLED": "0"}
    if where.token:
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": where.token}
    named = [f"{name}={value}" for name, value in environment.items()]
    return [*where.via, "env", *named, sys.executable, "-P", "-m", "jobs.launchers.ray.driver"]
