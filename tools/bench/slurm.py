"""Jobs through a real Slurm of slurm/devcluster: how fast they are submitted and what the coordinator costs, beside as
many plain calls of sbatch in the same run.

    python tools/bench/slurm.py [--points 60] [--seconds 1]
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEVCLUSTER = ROOT / "slurm" / "devcluster"
CLUSTER = """\
launcher: slurm
coordinator: {where: foreground}
poll_s: 2
limits: {queued: 1000, running: 1000}
stages: {default: {mem_gb: 0.5, time: 10m}}
"""


@contextmanager
def slurm() -> Iterator[dict[str, str]]:
    """A cluster of four nodes of 8 CPUs on paper; the environment for its commands."""
    with tempfile.TemporaryDirectory(prefix="stx-bs-", dir="/tmp") as folder:
        where = ["--dir", f"{folder}/dc"]
        subprocess.run([DEVCLUSTER / "up", "--cpus", "8", *where], check=True, stderr=subprocess.DEVNULL)
        try:
            yield os.environ | {"SLURM_CONF": f"{folder}/dc/slurm.conf", "PYTHONPATH": str(ROOT)}
        finally:
            subprocess.run([DEVCLUSTER / "down", *where], check=True, stderr=subprocess.DEVNULL)


def experiment(folder: Path, *, points: int, seconds: float) -> list[str]:
    """A sweep of programs that sleep; the command that submits it."""
    program = f"{{kind: command, argv: [sh, -c, 'sleep {seconds}; echo x > $STX_OUTPUT/a'], version: one"
    (folder / "e.yaml").write_text(
        f"name: bench\nstages:\n  a: {program}, sweep: {{seed: {list(range(points))}}}}}\n", encoding="utf-8"
    )
    (folder / "c.yaml").write_text(CLUSTER, encoding="utf-8")
    stx = [sys.executable, "-m", "stx.cli", "submit", str(folder / "e.yaml")]
    return [*stx, "--cluster", str(folder / "c.yaml"), "--store", str(folder / "store")]


def whole_run(command: list[str], env: dict[str, str]) -> tuple[float, float, float]:
    """Seconds, processor seconds of the coordinator and of what it called, and its peak memory (MB)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.monotonic()
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - begin, busy, after.ru_maxrss / 1024


def submitted_over(store: Path) -> float:
    """Seconds from the first request of the sweep to the last."""
    times = [path.stat().st_mtime for path in store.glob("stages/*/attempts/001/handle.json")]
    return max(times) - min(times)


def plain(env: dict[str, str], *, count: int) -> float:
    """Seconds that as many calls of sbatch take."""
    begin = time.monotonic()
    for _ in range(count):
        subprocess.run(["sbatch", "-o", "/dev/null", "--wrap", "true"], env=env, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begin


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=1.0)
    asked = parser.parse_args()
    with slurm() as env, tempfile.TemporaryDirectory(prefix="stx-bench-") as name:
        folder = Path(name)
        seconds, busy, memory = whole_run(experiment(folder, points=asked.points, seconds=asked.seconds), env)
        ours, alone = submitted_over(folder / "store"), plain(env, count=asked.points)
    print(f"{asked.points} stages of {asked.seconds:g} s on 32 CPUs on paper: {seconds:.1f} s")
    print(
        f"submissions/s   {asked.points / ours:.1f}; plain sbatch {asked.points / alone:.1f}; ratio {alone / ours:.2f}"
    )
    print(f"coordinator     {busy:.1f} s of processor time with the report, peak memory {memory:.0f} MB")


if __name__ == "__main__":
    main()
