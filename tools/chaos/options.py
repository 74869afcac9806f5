"""The command line of the driver: parsed once, refused with the valid values."""

import argparse
import contextlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stx.config.cluster import Cluster, load_cluster
from stx.config.load import load_experiment
from stx.errors import ConfigError
from tools.chaos.schedule import KINDS, SITE, Limits
from tools.chaos.site import DevCluster

IMPATIENT = Path(__file__).parent / "impatient.yaml"

ABOUT = """\
Break an experiment on purpose, again and again, and compare its results with those of a run that nobody touched.

The experiment is run once undisturbed. Then it is run --runs times, each time in a store of its own, under a schedule
of faults drawn from a seed; the same file is submitted again until it is done, as a person would. At the end the
payload digests must be those of the undisturbed run.
"""
MORE = """\
columns of the table:
  faults      how many happened (a fault that found nothing to break does not count); by kind in the last lines
  in a save   those that met a checkpoint or a result while it was written or published
  recomputed  images that were trained again, as far as an attempt lived to say so
  named       damaged results and records that were refused by their name (then restored from a copy, as from a backup)
  unread      those that nobody read before the end
  cancelled   attempts that were taken to hang although nothing had stopped them: must be 0
  surprises   tracebacks, refusals that name nothing we broke, processes left behind: must be 0
  lost wrong  results that are missing, and results that are not those of the undisturbed run: must be 0

exit codes: 0 nothing lost, nothing wrong; 1 something was; 2 usage; 130 interrupted. A run that fails keeps its store
and prints the command that repeats its schedule.

examples:
  python tools/chaos tests/integration/micro.yaml --runs 3 --keep-stages images,vae,latents,judge
  python tools/chaos mine.yaml --cluster mine-cluster.yaml --store-root /nfs/scratch --every 120 --faults 40
  python tools/chaos mine.yaml --untouched /nfs/finished-store --kinds kill,point,stall --seed 7
"""


@dataclass(frozen=True)
class Options:
    """What was asked for; `experiment` is the name in the file."""

    file: Path
    experiment: str
    cluster_file: str
    cluster: Cluster
    seed: int
    runs: int
    faults: int
    every_s: float
    kinds: tuple[str, ...]
    keep_stages: tuple[str, ...]
    untouched: Path | None
    store_root: Path | None
    limit_s: float | None
    devcluster: DevCluster | None
    as_json: bool

    @property
    def limits(self) -> Limits:
        """What the cluster file waits for."""
        limits = self.cluster.hang_after_s.model_dump()
        return Limits(work=max(limits["step"], limits["save"]), every=max(limits.values()))


def parser() -> argparse.ArgumentParser:
    """The declaration of the flags."""
    kinds = "\n".join(f"  {name:10} {words}" for name, words in KINDS.items())
    one = argparse.ArgumentParser(
        prog="python tools/chaos",
        description=f"{ABOUT}\nkinds of faults:\n{kinds}",
        epilog=MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument("file", type=Path, help="the experiment file")
    one.add_argument(
        "--cluster", default=str(IMPATIENT), metavar="F", help="cluster file or built-in; an impatient local one"
    )
    one.add_argument("--seed", type=int, help="of the first run; the others count up. Printed; drawn when not given")
    one.add_argument("--runs", type=_positive, default=1, metavar="N", help="how many runs (1)")
    one.add_argument("--faults", type=_positive, default=20, metavar="N", help="faults scheduled for each run (20)")
    one.add_argument("--every", type=_seconds, default=1.5, metavar="S", help="seconds between faults on average (1.5)")
    one.add_argument("--kinds", metavar="A,B", help="only these kinds of faults (all that are possible)")
    one.add_argument(
        "--keep-stages", default="", metavar="A,B", help="stages whose finished results each run starts with (none)"
    )
    one.add_argument("--untouched", type=Path, metavar="DIR", help="a store in which this file is finished already")
    one.add_argument("--store-root", type=Path, metavar="DIR", help="where the stores are made (a temporary folder)")
    one.add_argument(
        "--limit", type=_seconds, metavar="S", help="a run that takes longer is stuck (10 undisturbed runs + 600)"
    )
    one.add_argument(
        "--devcluster", type=Path, metavar="DIR", help="a slurm/devcluster that is up: preempt its jobs, kill its nodes"
    )
    one.add_argument("--json", action="store_true", help="the results as JSON")
    return one


def parse(arguments: Sequence[str]) -> Options:
    """The options; ends the program with exit code 2 and what would be valid."""
    flags = parser()
    given = flags.parse_args(arguments)
    possible = [kind for kind in KINDS if given.devcluster or kind not in SITE]
    kinds = tuple(possible) if given.kinds is None else _words(given.kinds)
    unknown = [kind for kind in kinds if kind not in possible]
    if unknown or not kinds:
        flags.error(f"--kinds: no kind {', '.join(unknown) or 'given'}; there are {', '.join(possible)}")
    if given.devcluster and not (given.devcluster / "slurm.conf").is_file():
        flags.error(f"--devcluster: no cluster in {given.devcluster}; slurm/devcluster/up --dir {given.devcluster}")
    try:
        experiment = load_experiment(given.file)
        cluster = load_cluster(given.cluster)
    except ConfigError as error:
        flags.error(str(error))
    keep = _words(given.keep_stages)
    if missing := [name for name in keep if name not in experiment.drafts]:
        flags.error(f"--keep-stages: no stage {', '.join(missing)}; there are {', '.join(experiment.drafts)}")
    if given.untouched and not (given.untouched / "experiments" / experiment.name).is_dir():
        flags.error(f"--untouched: {given.untouched} holds no experiment {experiment.name}")
    is_path = Path(given.cluster).is_file()
    return Options(
        file=given.file.resolve(),
        experiment=experiment.name,
        cluster_file=str(Path(given.cluster).resolve()) if is_path else given.cluster,
        cluster=cluster,
        seed=random.SystemRandom().randrange(1, 10**6) if given.seed is None else given.seed,
        runs=given.runs,
        faults=given.faults,
        every_s=given.every,
        kinds=kinds,
        keep_stages=keep,
        untouched=given.untouched.resolve() if given.untouched else None,
        store_root=given.store_root.resolve() if given.store_root else None,
        limit_s=given.limit,
        devcluster=DevCluster(given.devcluster.resolve()) if given.devcluster else None,
        as_json=given.json,
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[,\s]+", text) if word)


def _positive(text: str) -> int:
    with contextlib.suppress(ValueError):
        if (number := int(text)) >= 1:
            return number
    raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) < float("inf"):
            return number
    raise argparse.ArgumentTypeError(f"must be a positive number of seconds, not {text!r}")
