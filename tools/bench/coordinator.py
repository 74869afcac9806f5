"""What the coordinator costs over 10,000 stages: python tools/bench/coordinator.py [--stages 1000 10000] [--live 200]

A sweep of train stages over one latents stage, on a real store in a temporary folder, with a scheduler and a clock that
are made up: every job ends at the look after the one that saw it run, its worker's files are written here. Counted is
processor time of the coordinator's own calls, in a fresh process for each size, so that peak memory is of that size.
fsync does nothing: what a disk takes is another question.

Printed: CPU seconds per 1,000 stages and per look, of a look that finds nothing new (--live jobs run), of opening again
when all is done, journal bytes, peak memory; and how they grow from the first size to the last.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jobs import files, outcome
from jobs.files import AttemptDir
from jobs.outcome import Outcome
from jobs.spec import Handle, JobSpec, JobState, Observation, Resources, Result
from stx import records
from stx.config.cluster import Cluster
from stx.coordinator.driver import Coordinator
from stx.coordinator.lease import acquire
from stx.coordinator.prepare import prepare
from stx.coordinator.snapshot import Code
from stx.paths import StageDir, Store
from stx.spec import Artifact, Graph, Input, Node, StageSpec

IMAGES = 32_000
POLL_S = 30.0
IDLE_LOOKS = 30


class Kind:
    """A stage kind whose jobs nobody runs."""

    def layouts(self, node: Node, cluster: Cluster) -> Sequence[Mapping[str, int]]:
        return ({"ranks": 1},)

    def job(
        self,
        node: Node,
        *,
        cluster: Cluster,
        layout: Mapping[str, int],
        tag: str,
        attempt_dir: Path,
        python: str,
        code: Path,
    ) -> JobSpec:
        return JobSpec(tag=tag, argv=("true",), attempt_dir=attempt_dir, cwd=attempt_dir, resources=Resources())


class MadeUpScheduler:
    """Accepts everything, and says RUNNING until a job's worker has left its outcome."""

    def __init__(self) -> None:
        self.live: dict[str, JobSpec] = {}

    def identity(self) -> str:
        return "made-up"

    def refusal(self, resources: Resources) -> str | None:
        return None

    def render(self, job: JobSpec) -> str:
        return job.tag

    def submit(self, job: JobSpec) -> Handle:
        self.live[job.tag] = job
        return Handle(job.tag, f"job-{job.tag}")

    def poll(self, handles: Sequence[Handle], attempt_dirs: Mapping[str, Path]) -> dict[Handle, Observation]:
        running, ended = Observation(JobState.RUNNING), Observation(JobState.ENDED)
        return {handle: running if handle.tag in self.live else ended for handle in handles}

    def find(self, tag: str, attempt_dir: Path) -> Handle | None:
        return Handle(tag, f"job-{tag}") if tag in self.live else None

    def stop(self, handle: Handle, attempt_dir: Path) -> None:
        raise AssertionError("nothing is stopped here")

    cancel = stop

    def work(self) -> None:
        """Every job publishes what it was for, and completes."""
        for job in self.live.values():
            attempt = AttemptDir(job.attempt_dir)
            record = records.read(attempt.attempt)
            stage, spec = StageDir(job.attempt_dir.parent.parent), StageSpec.parse(record["spec"])
            images = record["wants"][0] if record["wants"] else None
            part = stage.result if images is None else stage.part(spec.kind, images)
            part.path.mkdir(parents=True, exist_ok=True)
            records.publish(part.artifact, Artifact(spec.kind, record["key"], images, {"payload": "0"}).dump())
            outcome.publish(attempt, Outcome(0, Result.COMPLETED))
        self.live.clear()

    def beat(self, count: int) -> None:
        for job in self.live.values():
            beat = {"counter": count, "phase": "step", "numbers": {}}
            records.write(AttemptDir(job.attempt_dir).heartbeat, beat)


def sweep(stages: int) -> Graph:
    latents = Node("latents", "latents", StageSpec("latents", 1, {"seed": 0}))
    inputs = {"latents": Input("latents", latents.key)}
    runs = [
        Node(f"run:seed={seed}", "run", StageSpec("train", 1, {"seed": seed, "lr": 3e-3}, inputs), wants=(IMAGES,))
        for seed in range(stages - 1)
    ]
    return Graph("bench", (latents, *runs))


class Bench:
    """One experiment, and the processor time of its coordinators."""

    def __init__(self, root: Path, *, stages: int, live: int) -> None:
        self.store, self.graph, self.now = Store(root), sweep(stages), 0.0
        limits = {"queued": live, "running": live}
        self.cluster = Cluster.model_validate({"name": "bench", "poll_s": POLL_S, "limits": limits})
        self.scheduler = MadeUpScheduler()
        self.leave: Callable[[], None] = lambda: None

    def open(self) -> tuple[Coordinator, float]:
        """A coordinator that looked at everything, and the seconds that took."""
        prepare(self.store, self.graph, "name: bench\n")
        lease = acquire(self.store.experiment("bench"), lease_s=self.cluster.lease_s, clock=lambda: self.now)
        begin = time.process_time()
        coordinator = Coordinator(
            self.store,
            self.graph,
            self.cluster,
            self.scheduler,
            lease=lease,
            code=Code("code", "science", self.store.root),
            python="python",
            clock=lambda: self.now,
            load_kind=lambda name: Kind(),
        )
        coordinator.open()
        seconds = time.process_time() - begin
        self.leave = lease.release
        return coordinator, seconds

    def look(self, coordinator: Coordinator) -> float:
        self.now += POLL_S
        return cpu_of(coordinator.round)

    def journal_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.store.experiment("bench").path.glob("events-*.jsonl"))


def cpu_of(call: Callable[[], object]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


def measure(root: Path, *, stages: int, live: int) -> dict[str, float]:
    """What one size costs."""
    bench = Bench(root, stages=stages, live=live)
    coordinator, first_open = bench.open()
    busy, looks, idle = 0.0, 0, 0.0
    while not coordinator.state.finished:
        busy += bench.look(coordinator)
        looks += 1
        if looks == 4:
            idle = idle_looks(bench, coordinator)
        if looks % 2 == 0:
            bench.scheduler.work()
    written = bench.journal_bytes()
    bench.leave()
    _, again = bench.open()
    return {
        "stages": stages,
        "busy_s": busy,
        "looks": looks,
        "idle_s": idle,
        "first_open_s": first_open,
        "open_s": again,
        "journal": written,
        "open_bytes": bench.journal_bytes() - written,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def idle_looks(bench: Bench, coordinator: Coordinator) -> float:
    """Seconds of a look while all that may run runs, beats, and nothing else happens."""
    total = 0.0
    bench.look(coordinator)
    for count in range(IDLE_LOOKS):
        bench.scheduler.beat(count)
        total += bench.look(coordinator)
    return total / IDLE_LOOKS


def say(found: Sequence[Mapping[str, float]], *, live: int) -> None:
    for one in found:
        thousands = one["stages"] / 1000
        print(
            f"{one['stages']:,.0f} stages, {live} at a time, {one['looks']:.0f} looks: CPU {one['busy_s']:.2f} s "
            f"({one['busy_s'] / thousands:.2f} s per 1,000 stages), {one['idle_s'] * 1e3:.1f} ms per look that finds "
            f"nothing new, {one['open_s']:.2f} s to open again; journal {one['journal'] / 1e6:.2f} MB "
            f"({one['journal'] / one['stages']:.0f} bytes a stage), {one['open_bytes']:.0f} bytes per opening; "
            f"peak memory {one['memory_mb']:.0f} MB"
        )
    first, last = found[0], found[-1]
    grown = {
        name: last[name] / first[name] for name in ("stages", "busy_s", "idle_s", "open_s", "journal", "memory_mb")
    }
    print("grown: " + ", ".join(f"{name} {ratio:.1f}x" for name, ratio in grown.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--live", type=int, default=200)
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:
        files.os = type("System", (), {"__getattr__": lambda self, name: getattr(os, name), "fsync": lambda *_: None})()
        with tempfile.TemporaryDirectory(prefix="stx-bench-") as folder:
            print(json.dumps(measure(Path(folder, "store"), stages=asked.only, live=asked.live)))
        return
    found = []
    for stages in asked.stages:
        command = [sys.executable, __file__, "--only", str(stages), "--live", str(asked.live)]
        found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    say(found, live=asked.live)


if __name__ == "__main__":
    main()
