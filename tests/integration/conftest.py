"""Whole experiments through the command line: a store per test, and digests to compare runs by."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from filelock import FileLock

HERE = Path(__file__).parent
MICRO = HERE / "micro.yaml"
QUICKSTART = HERE.parents[1] / "configs" / "quickstart.yaml"
# The same file with fewer steps and samples: nothing else is changed.
SHORT = {
    "stages.vae.steps": "60",
    "stages.judge.steps": "60",
    "stages.vanilla.steps": "30",
    "stages.vanilla.milestones": "[12, 24, 30]",
    "defaults.train.steps": "24",
    "defaults.train.milestones": "[12, 24]",
    "stages.features.draws": "1",
    "stages.samples.num_samples": "100",
    "stages.samples.sampler.steps": "8",
}
SHORTENED = (str(QUICKSTART), *(word for path, value in SHORT.items() for word in ("--set", f"{path}={value}")))


@dataclass
class Stx:
    """Runs `stx` as a person does, on a store of its own with slots of its own."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        own = {"STX_STORE": str(self.store), "STX_SLOTS": str(self.folder / "slots"), "STX_CORES": "2"}
        return {**os.environ, **own, **self.env, **(extra or {})}

    def start(self, *arguments: str, extra: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "stx.cli", *arguments],
            env=self.environment(extra),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, expect: int | None = 0, extra: Mapping[str, str] | None = None, limit: float = 600):
        process = self.start(*arguments, extra=extra)
        try:
            out, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            pytest.fail(f"stx {' '.join(arguments)} took longer than {limit} s\n{out}\n{err}")
        result = subprocess.CompletedProcess(arguments, process.returncode, out, err)
        if expect is not None and result.returncode != expect:
            pytest.fail(f"stx {' '.join(arguments)}: exit {result.returncode}, expected {expect}\n{out}\n{err}")
        return result

    def digests(self) -> dict[str, str]:
        """Payload digest of every result in the store, by its path."""
        results = sorted(self.store.glob("stages/**/artifact.json"))
        return {str(path.parent.relative_to(self.store)): json.loads(path.read_text())["digest"] for path in results}

    def attempts(self) -> dict[str, int]:
        """How many attempts every stage took."""
        stages = sorted(self.store.glob("stages/*"))
        return {stage.name: len(list(stage.glob("attempts/*.intent.json"))) for stage in stages}

    def processes(self) -> list[int]:
        """Live processes that belong to this store."""
        return [pid for pid, command in _commands() if str(self.folder) in command and pid != os.getpid()]

    def end(self) -> None:
        """Kill them."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@dataclass
class OnCluster:
    """A store, a cluster file, and stx there."""

    stx: Stx

    @property
    def file(self) -> Path:
        """The cluster file."""
        return self.stx.folder / "cluster.yaml"

    def submit(self, experiment: Path, *arguments: str, **options):
        return self.stx.run("submit", str(experiment), "--cluster", str(self.file), *arguments, **options)

    def start(self, experiment: Path, *arguments: str):
        return self.stx.start("submit", str(experiment), "--cluster", str(self.file), *arguments)


def _commands() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue


@pytest.fixture(scope="session")
def new_stx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Stx]]:
    """Makes runners with a fresh folder; whatever they leave running is ended after the session."""
    made: list[Stx] = []

    def make(name: str) -> Stx:
        made.append(Stx(tmp_path_factory.mktemp(name)))
        return made[-1]

    yield make
    for runner in made:
        runner.end()


@pytest.fixture
def stx(new_stx: Callable[[str], Stx]) -> Stx:
    return new_stx("stx")


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Callable[..., Stx]:
    """Runs an experiment once for all test processes; what it printed is in `said`."""
    base = tmp_path_factory.getbasetemp()

    def run(name: str, *submit: str) -> Stx:
        runner = Stx((base if worker_id == "master" else base.parent) / name)
        with FileLock(f"{runner.folder}.lock"):
            if not runner.folder.exists():
                runner.folder.mkdir()
                done = runner.run("submit", *submit, limit=1200)
                (runner.folder / "said").write_text(done.stdout + done.stderr)
        return runner

    return run


@pytest.fixture(scope="session")
def micro(once: Callable[..., Stx]) -> Stx:
    """The micro experiment, never touched: what killed runs are compared with."""
    return once("micro", str(MICRO))


@pytest.fixture(scope="session")
def short(once: Callable[..., Stx]) -> Stx:
    """The shortened quickstart, never touched: what it is compared with elsewhere."""
    return once("short", *SHORTENED)


@pytest.fixture
def with_latents(micro: Stx, stx: Stx) -> Stx:
    """A store of its own in which images, autoencoder and latents of the micro experiment are finished."""
    for kind in ("images", "autoencoder", "latents"):
        for stage in micro.store.glob(f"stages/{kind}-*"):
            shutil.copytree(stage, stx.store / "stages" / stage.name, ignore=shutil.ignore_patterns("wanted_by"))
    return stx
