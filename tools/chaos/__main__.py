"""python tools/chaos FILE: break an experiment on purpose and compare its results with an undisturbed run (--help)."""

import json
import shlex
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])  # this folder's modules are tools.chaos.*, and stx is the tree's

from stx.errors import StxError  # noqa: E402
from tools.chaos import options, table  # noqa: E402
from tools.chaos.options import Options  # noqa: E402
from tools.chaos.run import Report, Run, dump  # noqa: E402
from tools.chaos.schedule import schedule  # noqa: E402
from tools.chaos.untouched import Untouched, begin_with, taken, untouched  # noqa: E402

SCHEMA = 1
INTERRUPTED = 130


def main(arguments: list[str]) -> int:
    """Parse, run, print; the exit code."""
    wanted = options.parse(arguments)
    signal.signal(signal.SIGINT, interrupt)  # a shell that starts us in the background ignores it
    signal.signal(signal.SIGTERM, interrupt)
    root = wanted.store_root or Path(tempfile.mkdtemp(prefix="stx-chaos-"))
    home = root / f"chaos-{wanted.seed}"
    if home.exists():
        say(f"{home} exists: an earlier run of this seed; remove it, or give another --store-root or --seed")
        return 2
    try:
        home.mkdir(parents=True)
    except OSError as error:
        say(f"--store-root: {home} cannot be made: {error.strerror}; give a folder that you may write to")
        return 2
    reports: list[Report] = []
    try:
        truth = undisturbed(wanted, home)
        print_head(wanted)
        for number in range(wanted.runs):
            reports.append(one_run(wanted, home, truth=truth, seed=wanted.seed + number))
            print_run(wanted, reports, truth=truth)
    except KeyboardInterrupt:
        if reports:
            print_totals(wanted, reports)
        say(f"interrupted; every process that was started is ended, and the stores are in {home}")
        return INTERRUPTED
    except StxError as error:
        say(str(error))
        return error.exit_code
    print_totals(wanted, reports)
    if all(report.is_good for report in reports):
        shutil.rmtree(home if wanted.store_root else root)
        return 0
    return 1


def interrupt(_number: int, _frame: object) -> None:
    """The first signal ends the run and all that it started; a second one must not cut that short."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def undisturbed(wanted: Options, home: Path) -> Untouched:
    """The results that every run must come to."""
    if wanted.untouched is not None:
        return taken(wanted.untouched, experiment=wanted.experiment)
    say(f"seed {wanted.seed}: the undisturbed run, in {home / 'untouched'}")
    truth = untouched(
        home / "untouched",
        experiment=wanted.experiment,
        file=wanted.file,
        cluster=wanted.cluster_file,
        site=wanted.devcluster,
    )
    say(f"undisturbed: {len(truth.digests)} results in {truth.seconds:.0f} s")
    return truth


def one_run(wanted: Options, home: Path, *, truth: Untouched, seed: int) -> Report:
    """One schedule on a fresh store."""
    folder = home / f"run-{seed}"
    begin_with(folder / "store", source=truth, stages=wanted.keep_stages)
    faults = schedule(seed, kinds=wanted.kinds, faults=wanted.faults, every_s=wanted.every_s, limits=wanted.limits)
    limit_s = wanted.limit_s or 10 * truth.seconds + 600
    run = Run(folder, seed, wanted.experiment, wanted.file, wanted.cluster_file, faults, limit_s, wanted.devcluster)
    return run.go(truth.digests)


def print_head(wanted: Options) -> None:
    """The first line of the table."""
    if not wanted.as_json:
        print(table.head(), flush=True)


def print_run(wanted: Options, reports: list[Report], *, truth: Untouched) -> None:
    """The last run's line; what is wrong with it, and how to see it again; progress with a rate and an ETA."""
    report = reports[-1]
    if not wanted.as_json:
        print(table.line(report), flush=True)
    if report.is_good:
        shutil.rmtree(report.store.parent)
    else:
        say(table.faults(report))
        say(f"its store is {report.store}; the same schedule again: {again(wanted, report, truth=truth)}")
    seconds = sum(one.seconds for one in reports)
    count = sum(one.faults.total() for one in reports)
    left = seconds / len(reports) * (wanted.runs - len(reports))
    say(
        f"{time.strftime('%H:%M:%S')} run {len(reports)} of {wanted.runs}: {count} faults in all, "
        f"{60 * count / seconds:.0f} a minute, {seconds / len(reports):.0f} s a run, {left / 60:.0f} min left"
    )


def again(wanted: Options, report: Report, *, truth: Untouched) -> str:
    """The command that repeats one run's schedule."""
    words = ["python", "tools/chaos", str(wanted.file), "--cluster", wanted.cluster_file, "--seed", str(report.seed)]
    words += ["--faults", str(wanted.faults), "--every", f"{wanted.every_s:g}", "--kinds", ",".join(wanted.kinds)]
    words += ["--keep-stages", ",".join(wanted.keep_stages)] if wanted.keep_stages else []
    words += ["--devcluster", str(wanted.devcluster.folder)] if wanted.devcluster else []
    return shlex.join([*words, "--untouched", str(truth.store)])


def print_totals(wanted: Options, reports: list[Report]) -> None:
    """The last lines, or the whole as JSON."""
    if wanted.as_json:
        record = {
            "schema": SCHEMA,
            "seed": wanted.seed,
            "file": str(wanted.file),
            "runs": [dump(one) for one in reports],
        }
        print(json.dumps(record))
    else:
        print(table.totals(reports))


def say(text: str) -> None:
    """Words for people."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
