"""`stx --help`, cold, against `python -c pass`: how long a person waits for the command line to say anything.

    python tools/bench/startup.py [--runs 11]

Must hold: under 0.4 s more. Cold means a fresh interpreter each time; the medians of alternating runs are compared.
"""

import argparse
import statistics
import subprocess
import sys
import time

BASE = ("-c", "pass")
COMMANDS = {
    "stx --help": ("-m", "stx.cli", "--help"),
    "stx submit --help": ("-m", "stx.cli", "submit", "--help"),
    "completion of a verb": ("-m", "stx.cli", "complete", "--", "stx sta"),
}
LIMIT_S = 0.4


def seconds(arguments: tuple[str, ...]) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=11)
    runs = parser.parse_args().runs
    times: dict[tuple[str, ...], list[float]] = {BASE: [], **{command: [] for command in COMMANDS.values()}}
    for _ in range(runs):
        for command, found in times.items():
            found.append(seconds(command))
    base = statistics.median(times[BASE])
    print(f"{'what':24} {'median s':>9} {'more s':>9}   must: under {LIMIT_S} more")
    print(f"{'python -c pass':24} {base:9.3f}")
    for name, command in COMMANDS.items():
        median = statistics.median(times[command])
        print(f"{name:24} {median:9.3f} {median - base:9.3f}   {'ok' if median - base < LIMIT_S else 'TOO SLOW'}")


if __name__ == "__main__":
    main()
