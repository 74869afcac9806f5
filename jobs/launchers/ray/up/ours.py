"""Ray on one node, as a child of the supervisor: from a folder and free ports to `ray start`, and to its end.

Success is the file that `ray start` writes once the node is registered. A port that was free may be taken at the moment
of its use: then other ones are tried.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from jobs import files
from jobs.conclusion import log
from jobs.launchers.ray.up import command, daemons, ports, shelter, size
from jobs.launchers.ray.up.command import Ports
from jobs.launchers.ray.up.folder import Asked, Head

TRIES = 3
MARK = "ray_current_cluster"
KEPT_BYTES, TOLD_LINES = 1 << 16, 15
KEPT = (".out", ".err", ".log")


class Failed(Exception):
    """Ray does not start here; the words say why."""


class OurRay:
    """Ray's daemons on this node. `output`: where what `ray start` prints goes."""

    def __init__(self, asked: Asked, *, name: str, output: Path) -> None:
        self._asked, self._name, self._output = asked, name, output
        self._folder: Path | None = None
        self._pid = 0
        self.code: int | None = None  # of `ray start`, once it has ended

    def start(self, *, host: str, head: Head | None, pause: Callable[[], None]) -> Ports:
        """Start it at this address, as the head or to join one; returns when the node is registered. `pause` sleeps a
        moment, notes what has ended, and raises when nobody wants us any more. Failed where it does not come to that.
        """
        asked = self._asked
        offered = size.of(cpus=asked.cpus, gpus=asked.gpus, mem_gb=asked.mem_gb, head=head is None)
        for number in range(1, TRIES + 1):
            self._folder = shelter.make(Path(asked.temp_dir))
            chosen = choose(head=head is None, dashboard=asked.dashboard_port)
            argv = command.start(
                name=self._name, address=host, ports=chosen, size=offered, temp_dir=str(self._folder), head=head
            )
            self.code = None
            env = command.environment(token=asked.token, extra=asked.env)
            self._pid = daemons.spawn(argv, env=env, log=self._output)
            log(f"started ray pid={self._pid} host={host} ports={chosen.all} size={offered} in={self._folder}")
            words = self._wait(pause)
            if words is None:
                return chosen
            self._end_daemons()
            taken = ports.taken(chosen.all)
            log(f"ray start failed try={number} ports_taken={taken}: {words}")
            if not taken or number == TRIES:
                raise Failed(f"ports {taken} were taken; {words}" if taken else words)
            self.end()
        raise AssertionError("the last try returns or raises")

    def _wait(self, pause: Callable[[], None]) -> str | None:
        """Until the file is there; else words that say why not."""
        assert self._folder is not None, "it was made before"
        deadline = time.monotonic() + self._asked.start_s
        while not (self._folder / MARK).exists():
            pause()
            if self.code is not None:
                return f"`ray start` ended with {self.code}: {self.last_words()}"
            if time.monotonic() > deadline:
                return f"`ray start` was not ready within {self._asked.start_s:g} s: {self.last_words()}"
        return None

    def note(self, codes: Mapping[int, int]) -> None:
        """What was reaped: exit codes by pid."""
        self.code = codes.get(self._pid, self.code)

    def end(self) -> None:
        """End it with all that it started, and remove its folder."""
        self._end_daemons()
        if self._folder is not None:
            shelter.remove(self._folder)
            self._folder = None

    def _end_daemons(self) -> None:
        if self._pid:
            daemons.end(self._pid)
            self._pid = 0

    def keep_logs(self, where: Path) -> None:
        """The ends of the daemons' own logs, before they go with the folder."""
        with contextlib.suppress(OSError):
            for path in self._logs():
                files.make_dir(where)
                files.write(where / path.name, files.tail(path, KEPT_BYTES))

    def last_words(self) -> str:
        """The last lines of what `ray start` and its daemons said."""
        text = ""
        for path in (self._output, *(path for path in self._logs() if path.suffix == ".err")):
            with contextlib.suppress(OSError):  # words that cannot be read change nothing about what happened
                text += files.tail(path, KEPT_BYTES).decode(errors="replace") + "\n"
        return "\n".join([line for line in text.splitlines() if line.strip()][-TOLD_LINES:])

    def _logs(self) -> list[Path]:
        """But for those of workers, of which there are many."""
        found = [] if self._folder is None else self._folder.glob("session_[0-9]*/logs/*")
        return sorted(
            path for path in found if path.suffix in KEPT and not path.name.startswith(("worker-", "python-core-"))
        )


def choose(*, head: bool, dashboard: int | None) -> Ports:
    """Free ports; for the dashboard the one that was asked for, if one was."""
    if dashboard is not None and head and not ports.is_free(dashboard):
        raise Failed(f"port {dashboard} is taken; without ray.dashboard_port the dashboard gets a free one")
    if not head:
        node_manager, object_manager, metrics = ports.free(3)
        return Ports(node_manager=node_manager, object_manager=object_manager, metrics=metrics)
    node_manager, object_manager, metrics, gcs, client, spare = ports.free(6)
    return Ports(
        node_manager=node_manager,
        object_manager=object_manager,
        metrics=metrics,
        gcs=gcs,
        client=client,
        dashboard=spare if dashboard is None else dashboard,
    )
