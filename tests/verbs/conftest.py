"""A store with a large sweep as a coordinator leaves it, and terminals of any size (pseudo-terminals read by pyte)."""

import contextlib
import fcntl
import os
import pty
import select
import shutil
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyte
import pytest

from jobs.spec import JobState
from stx import records
from stx.coordinator import lease
from stx.coordinator.events import Event, Facts, Live, Observed, Opened, Policy, Surveyed
from stx.coordinator.journal import Journal
from stx.endings import Ended
from stx.paths import Store
from stx.spec import Graph, Input, Node, StageSpec

ROOT = Path(__file__).resolve().parents[2]
POLICY = Policy(retries={}, backoff_s=(0.0,), queued=10, running=10, stop_lead_s=5.0)
REASON = "USER: ValueError: the latents of shard 3 are 16 wide and the model wants 32"


class Sweep:
    """Experiment `big`: latents, and a sweep over seeds of which the first two failed, some run, the others wait."""

    def __init__(self, root: Path, *, size: int = 1000, live: int = 40) -> None:
        self.store = Store(root)
        first = Node("latents", "latents", StageSpec("latents", 1, {}))
        inputs = {"latents": Input("latents", first.key)}
        self.runs = [
            Node(f"run:seed={seed}", "run", StageSpec("train", 1, {"seed": seed}, inputs), wants=(100,))
            for seed in range(size - 1)
        ]
        self.graph = Graph("big", (first, *self.runs))
        self.experiment = self.store.experiment("big")
        self.experiment.path.mkdir(parents=True)
        records.write(self.experiment.graph, self.graph.dump())
        self.journal = Journal(self.experiment, 1)
        ended = Ended(number=1, result="FAILED", cause="USER", message=REASON.removeprefix("USER: "))
        events: list[Event] = [Opened(0.0, "c", 1, POLICY, facts={}), Surveyed(0.0, first.key, Facts(artifact=True))]
        events += [Surveyed(0.0, node.key, Facts(last=1, ended=ended, spent={"USER": 1})) for node in self.runs[:2]]
        for node in self.runs[2 : 2 + live]:
            events += self.started(node)
        self.journal.append(events)

    def start(self, node: Node) -> None:
        """A stage runs from now on."""
        self.journal.append(self.started(node))

    def started(self, node: Node) -> list[Event]:
        """What is journaled of a stage that runs; its heartbeat is there."""
        self.beat(node, images=50)
        live = Live(number=1, experiment="big", host="h", launcher="local:x", reachable=True, job_id="17:1:x")
        return [Surveyed(0.0, node.key, Facts(last=1, live=live)), Observed(0.0, node.key, 1, JobState.RUNNING)]

    def beat(self, node: Node, *, images: int) -> None:
        """Its heartbeat at so many images."""
        folder = self.store.stage("train", node.key).attempt(1)
        folder.path.mkdir(parents=True, exist_ok=True)
        numbers = {"images": images, "total": 100, "images_per_s": 10.0, "loss": 0.5}
        beat = {"counter": 1, "phase": "step", "time": time.time(), "numbers": numbers}
        folder.heartbeat.write_bytes(records.dumps(beat))


class Terminal:
    """A program in a pseudo-terminal."""

    def __init__(self, argv: Sequence[str], *, columns: int, lines: int = 24, env: dict[str, str]) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.master, slave = pty.openpty()
        self.resize(columns, lines)
        self.pid = os.posix_spawn(
            shutil.which(argv[0]) or argv[0],
            list(argv),
            env,
            # opened by the leader of a new session, it becomes the terminal that controls it
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.ttyname(slave), os.O_RDWR, 0)]
            + [(os.POSIX_SPAWN_DUP2, 0, one) for one in (1, 2)],
            setsid=True,
        )
        os.close(slave)
        self.code: int | None = None

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)

    @property
    def text(self) -> str:
        """What is on the screen."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, true: Callable[[], bool], *, seconds: float = 20.0) -> None:
        """Read what the program writes until something is so."""
        limit = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < limit, f"it did not happen in time; the screen:\n{self.text}"
            self._read(0.1)

    def says(self, text: str) -> None:
        self.until(lambda: text in self.text)

    def ends(self) -> int:
        """Its exit code, when it has ended and all is read."""
        self.until(lambda: self._ended())
        while self._read(0.0):
            pass
        assert self.code is not None
        return self.code

    def close(self) -> None:
        if not self._ended():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.master)

    def _ended(self) -> bool:
        if self.code is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if found else None
        return self.code is not None

    def _read(self, seconds: float) -> bool:
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        with contextlib.suppress(OSError):  # the program has closed its end
            data = os.read(self.master, 1 << 16)
            self.raw += data
            self._stream.feed(data)
            return bool(data)
        return False


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """A thousand stages, 40 of them live, 2 failed."""
    return Sweep(tmp_path / "store")


@pytest.fixture
def driven(sweep: Sweep) -> Iterator[Sweep]:
    """The same with a coordinator: this process holds the lease."""
    held = lease.acquire(sweep.experiment, lease_s=60.0)
    yield sweep
    held.release()


@pytest.fixture
def terminal(sweep: Sweep, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Starts stx, or another program, in a terminal of so many columns."""
    started: list[Terminal] = []
    plain = {name: os.environ[name] for name in ("PATH", "HOME", "OMP_NUM_THREADS") if name in os.environ}
    env = plain | {"PYTHONPATH": str(ROOT), "STX_STORE": str(sweep.store.root), "TERM": "xterm"}

    def start(*words: str, columns: int = 80, lines: int = 24, argv: Sequence[str] = (), **more: str) -> Terminal:
        program = argv or (sys.executable, "-m", "stx.cli", *words)
        started.append(Terminal(program, columns=columns, lines=lines, env=env | more))
        return started[-1]

    yield start
    for one in started:
        one.close()
