"""The quickstart on this machine: wall-clock seconds, peak memory summed over its processes, and where the time went.

    python tools/bench/quickstart.py [--store DIR] [stx submit arguments ...]

Must hold: at most 8 minutes on 2 otherwise idle cores, at most 4 GiB. Memory is sampled once a second: the sum of
resident sets (shared pages counted in every process, so an upper bound) and of proportional sets (counted once).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30


def family(store: str) -> list[psutil.Process]:
    """Every process that names the store on its command line or has it in its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if store in " ".join(process.cmdline()) or process.environ().get("STX_STORE") == store:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def memory(processes: list[psutil.Process]) -> tuple[float, float]:
    rss = pss = 0.0
    for process in processes:
        try:
            full = process.memory_full_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        rss += full.rss
        pss += full.pss
    return rss / GIB, pss / GIB


def measure(store: str, extra: list[str]) -> tuple[float, float, float]:
    env = {**os.environ, "STX_STORE": store}
    command = [sys.executable, "-m", "stx.cli", "submit", str(ROOT / "configs" / "quickstart.yaml"), *extra]
    start = time.monotonic()
    process = subprocess.Popen(command, env=env)
    peak_rss = peak_pss = 0.0
    while process.poll() is None:
        own = [p for p in family(store) if p.pid != os.getpid()]
        rss, pss = memory(own)
        peak_rss, peak_pss = max(peak_rss, rss), max(peak_pss, pss)
        time.sleep(1.0)
    if process.returncode:
        sys.exit(f"the quickstart ended with exit code {process.returncode}")
    return time.monotonic() - start, peak_rss, peak_pss


def first_steps(store: Path) -> list[float]:
    outcomes = [json.loads(path.read_text()) for path in store.glob("stages/train-*/attempts/*/outcome-0.json")]
    return [outcome["info"].get("first_step_s", 0.0) for outcome in outcomes]


def stage_seconds(store: Path) -> list[tuple[str, int, float]]:
    rows = []
    for stage in sorted(store.glob("stages/*")):
        outcomes = list(stage.glob("attempts/*/outcome-0.json"))
        spent = sum(path.stat().st_mtime - (path.parent / "started.json").stat().st_mtime for path in outcomes)
        rows.append((stage.name, len(outcomes), spent))
    return sorted(rows, key=lambda row: -row[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", help="a new folder; a temporary one by default")
    arguments, extra = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="stx-bench-") as folder:
        store = arguments.store or f"{folder}/store"
        seconds, rss, pss = measure(store, extra)
        print(f"\n{'stage':40s} {'attempts':>8s} {'seconds':>8s}")
        for name, attempts, spent in stage_seconds(Path(store)):
            print(f"{name:40s} {attempts:8d} {spent:8.1f}")
        first = [value for value in first_steps(Path(store)) if value]
        print(f"\nstart of a train worker to its first step: median {statistics.median(first):.1f} s of {len(first)}")
    print(f"\nwall {seconds:.0f} s (must: 480) on {len(os.sched_getaffinity(0))} cores")
    print(f"peak memory {rss:.2f} GiB resident (must: 4), {pss:.2f} GiB proportional")


if __name__ == "__main__":
    main()
