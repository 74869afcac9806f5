"""Small stages packed into a real Ray of four CPUs on paper, beside the ideal; and how long a stage that is ready waits
for its rank: locally, through Ray and through a real Slurm, all three looked at twice a second.

    python tools/bench/packing.py [--points 64] [--seconds 2]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import ray_cluster  # noqa: E402
import slurm_cluster  # noqa: E402

CPUS = 4
LINKS = 6
RAY = """\
launcher: ray
ray: {{address: "{address}", token: {token}}}
coordinator: {{where: foreground}}
poll_s: 0.5
stages: {{default: {{mem_gb: 0.1, time: 10m}}}}
"""
LOCAL = "launcher: local\npoll_s: 0.5\nstages: {default: {mem_gb: 0.1, time: 10m}}\n"
SLURM = """\
launcher: slurm
coordinator: {where: foreground}
poll_s: 0.5
stages: {default: {mem_gb: 0.1, time: 10m}}
"""


def submit(
    folder: Path, name: str, *, stages: str, cluster: str, env: Mapping[str, str] | None = None
) -> tuple[float, Path]:
    """Seconds of a whole `stx submit`, and its store. `env` finds the scheduler."""
    place = folder / name
    place.mkdir()
    (place / "e.yaml").write_text(f"name: bench\nstages:\n{stages}", encoding="utf-8")
    (place / "c.yaml").write_text(cluster, encoding="utf-8")
    own = {"STX_CORES": str(CPUS), "STX_SLOTS": str(place / "slots"), "PYTHONPATH": str(ROOT)}
    stx = [sys.executable, "-m", "stx.cli", "submit", str(place / "e.yaml")]
    command = [*stx, "--cluster", str(place / "c.yaml"), "--store", str(place / "store")]
    begin = time.monotonic()
    subprocess.run(command, env={**os.environ, **own, **(env or {})}, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begin, place / "store"


def sweep(points: int, seconds: float) -> str:
    """Programs that sleep, all ready at once."""
    program = f"{{kind: command, argv: [sh, -c, 'sleep {seconds}; echo x > $STX_OUTPUT/a'], version: one"
    return f"  a: {program}, sweep: {{seed: {list(range(points))}}}}}\n"


def chain() -> str:
    """Programs that wait for each other."""
    lines = []
    for number in range(LINKS):
        needs = f", inputs: {{before: s{number - 1}}}" if number else ""
        argv = f"[sh, -c, 'echo {number} > $STX_OUTPUT/a']"
        lines.append(f"  s{number}: {{kind: command, argv: {argv}, version: one{needs}}}\n")
    return "".join(lines)


def waits(store: Path) -> list[float]:
    """Seconds from each result to the start of the rank that waited for it."""
    ended = sorted(path.stat().st_mtime for path in store.glob("stages/*/artifact.json"))
    began = sorted(path.stat().st_mtime for path in store.glob("stages/*/attempts/001/alive-0"))
    return [begin - end for end, begin in zip(ended, began[1:], strict=False)]


def main() -> int:
    """Print what was measured; 1 where the packing is below its goal."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0)
    asked = parser.parse_args()
    ideal = asked.points * asked.seconds / CPUS
    with ray_cluster.cluster() as made, tempfile.TemporaryDirectory(prefix="stx-bench-") as name:
        folder = Path(name)
        made.start("n1", cpus=CPUS)
        on_ray = RAY.format(address=made.address, token=made.token)
        stages = sweep(asked.points, asked.seconds)
        took = {
            "ray": submit(folder, "ray", stages=stages, cluster=on_ray)[0],
            "local": submit(folder, "local", stages=stages, cluster=LOCAL)[0],
        }
        _, chained = submit(folder, "ray-chain", stages=chain(), cluster=on_ray)
        _, here = submit(folder, "local-chain", stages=chain(), cluster=LOCAL)
        began = {"ray": waits(chained), "local": waits(here)}
    with slurm_cluster.cluster() as site, tempfile.TemporaryDirectory(prefix="stx-bench-") as name:
        _, queued = submit(Path(name), "slurm-chain", stages=chain(), cluster=SLURM, env=site.env)
        began["slurm"] = waits(queued)
    print(f"{asked.points} stages of {asked.seconds:g} s on {CPUS} CPUs on paper, {os.cpu_count()} real ones")
    for where, seconds in took.items():
        print(f"{where:<6} {seconds:6.1f} s, {ideal / seconds:.2f} of the ideal {ideal:g} s")
    print("seconds from a stage that is ready to its rank")
    for where, late in began.items():
        print(f"{where:<6} {statistics.median(late):.2f} ({min(late):.2f} to {max(late):.2f})")
    return 0 if ideal / took["ray"] >= 0.8 else 1


if __name__ == "__main__":
    sys.exit(main())
