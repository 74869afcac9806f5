"""This machine, as the cluster file wants to use it: Python, packages, cores, memory, GPUs, what a worker imports.

torch is imported in a child only: what a worker can load, and how many GPUs it sees, is asked of a worker's Python.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import stx
from jobs import slots
from jobs.launcher import Launcher
from jobs.launchers.local import LocalLauncher, memory_gb
from jobs.spec import Resources
from stx.config.cluster import Cluster, Layout, StageResources
from stx.report.words import plural
from stx.stages.base import layout_of, layouts_of, request
from stx.verbs.check import Check, fail, good, warn
from stx.verbs.refuse import missing_program, path_with

ROOT = Path(stx.__file__).parents[1]
PINS = ROOT / "constraints.txt"
IMPORT_LIMIT_S = 300
OPEN_FILES = 1024
INSTALL = "pip install -c constraints.txt . in the folder of the sources"
# What every worker imports, and what it sees; the last line of its output is JSON.
PROBE = """
import json
from stx.worker import train
import torch
gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
print(json.dumps({"gpus": gpus, "torch": torch.__version__}))
"""


def machine(cluster: Cluster) -> Iterator[Check]:
    """All checks of this machine."""
    yield python()
    yield from packages(requirements(), installed=versions(), pins=pins(PINS))
    yield from worker()
    if cluster.launcher == "local":
        yield from sizes(cluster, LocalLauncher(), there=f"{plural(slots.cores(), 'core')} for jobs")
        yield from crowd(cluster)
    yield from limits()
    yield from event_program(cluster)


def python() -> Check:
    """The interpreter that runs this also runs the workers."""
    version = platform.python_version()
    try:
        wanted = str(metadata.metadata("stx").json.get("requires_python", ""))
    except metadata.PackageNotFoundError:
        wanted = ""
    if SpecifierSet(wanted).contains(version):
        return good("python", f"{version} ({sys.executable})")
    return fail("python", f"{version}, stx needs {wanted}", "make a virtual environment of another Python")


def requirements() -> list[Requirement]:
    """What stx needs without its extras; nothing where it was never installed and runs from its sources."""
    try:
        found = [Requirement(line) for line in metadata.requires("stx") or ()]
    except metadata.PackageNotFoundError:
        return []
    return [one for one in found if one.marker is None or one.marker.evaluate({"extra": ""})]


def versions() -> dict[str, str]:
    """The installed distributions, by normalized name."""
    return {plain(one.name): one.version for one in metadata.distributions() if one.name}


def pins(path: Path) -> dict[str, str]:
    """The tested versions: `name==version` lines."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    pairs = [line.partition("==") for line in lines if "==" in line and not line.startswith("#")]
    return {plain(name): version for name, _, version in pairs}


def plain(name: str) -> str:
    """A distribution's name as pip compares it."""
    return name.lower().replace("_", "-").replace(".", "-")


def packages(wanted: list[Requirement], *, installed: Mapping[str, str], pins: Mapping[str, str]) -> Iterator[Check]:
    """Missing, too old, or other than tested."""
    if not wanted:
        yield warn("packages", "stx is not installed, so what it needs is not known here", INSTALL)
        return
    missing = [one.name for one in wanted if plain(one.name) not in installed]
    there = {one.name: (one, installed[plain(one.name)]) for one in wanted if plain(one.name) in installed}
    old = [
        f"{name} {version} ({one.specifier})" for name, (one, version) in there.items() if version not in one.specifier
    ]
    other = [
        f"{name} {version} (tested: {pins[plain(name)]})"
        for name, (_, version) in there.items()
        if version.partition("+")[0] != pins.get(plain(name), version.partition("+")[0])
    ]
    if missing:
        yield fail("packages", f"missing: {', '.join(missing)}", INSTALL)
    if old:
        yield fail("packages", f"of a version that stx does not work with: {', '.join(old)}", INSTALL)
    if other:
        words = f"other versions than tested: {', '.join(other)}"
        yield warn("packages", words, f"{INSTALL}; digests are promised equal only between equal packages")
    if not (missing or old or other):
        tested = "at the tested versions" if pins else "at versions that stx accepts; constraints.txt is not here"
        yield good("packages", f"{plural(len(wanted), 'package')} {tested}")


def worker() -> Iterator[Check]:
    """A worker's imports, from the sources that a submit would copy."""
    began = time.monotonic()
    env = os.environ | {"PYTHONPATH": path_with(ROOT)}
    argv = [sys.executable, "-c", PROBE]
    try:
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=IMPORT_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        yield fail("worker", f"its imports took longer than {IMPORT_LIMIT_S} s", "is Python on a slow file system?")
        return
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        yield fail("worker", f"its packages cannot be imported: {last}", INSTALL)
        return
    seen = json.loads(done.stdout.strip().splitlines()[-1])
    yield good("worker", f"imports torch {seen['torch']} and deepspeed in {time.monotonic() - began:.1f} s")
    here = len(slots.gpus())
    if seen["gpus"] < here:
        words = f"this machine has {plural(here, 'GPU')}, torch sees {seen['gpus']}"
        yield fail("gpus", words, "a driver, or a torch without CUDA; STX_GPUS=0 runs on the CPU")
    else:
        yield good("gpus", f"{plural(here, 'GPU')} for jobs" if here else "none: jobs run on the CPU")


def sizes(cluster: Cluster, launcher: Launcher, *, there: str) -> Iterator[Check]:
    """Of every job that the cluster file asks for, one of its layouts fits what is `there`."""
    refused = False
    for kind, resources in cluster.stages.items():
        reasons = [launcher.refusal(_job(layout, resources)) for layout in layouts_of(resources)]
        for number, reason in enumerate(reasons):
            place = f"cluster {cluster.name}: stages.{kind}"
            if reason and all(reasons):
                refused = True
                yield fail("job sizes", f"{place}: {reason}", "ask for less")
            elif reason:
                refused = True
                yield warn("job sizes", f"{place}: layout {number + 1} is never used here: {reason}", "see stx plan")
    if not refused:
        yield good("job sizes", f"all jobs of cluster {cluster.name} fit: {there}")


def crowd(cluster: Cluster) -> Iterator[Check]:
    """Cores are handed out, memory is not: as many jobs as cores allow must fit the memory together."""
    total = memory_gb()
    greedy = max(cluster.stages.values(), key=lambda one: one.mem_gb / _job(layouts_of(one)[0], one).cpus_per_rank)
    job = _job(layouts_of(greedy)[0], greedy)
    together = min(max(1, slots.cores() // (job.ranks * job.cpus_per_rank)), cluster.limits.running)
    words = f"{plural(together, 'job')} at a time of mem_gb {greedy.mem_gb:g}, the machine has {total:.1f} GiB"
    if together * greedy.mem_gb > total:
        yield warn("memory", words, "lower limits.running, or give jobs more cores (cpus_per_rank)")
    else:
        yield good("memory", words)


def _job(layout: Layout, resources: StageResources) -> Resources:
    return request(layout_of(layout, resources), resources)


def limits() -> Iterator[Check]:
    """Open files, and the folder in which jobs of this user share out the machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES:
        yield warn("open files", f"at most {soft} (hard limit {hard})", f"ulimit -n {min(hard, 65536)} before submit")
    folder = slots.default_dir()
    claim = slots.Claim(folder, cores=0, gpus=0)
    claim.advance()
    claim.release()
    yield good("slots", f"cores and GPUs are shared out in {folder}")


def event_program(cluster: Cluster) -> Iterator[Check]:
    """The program of on_event."""
    if cluster.on_event is None:
        return
    missing = missing_program(cluster.on_event[0])
    if missing:
        yield fail("on_event", f"cluster {cluster.name}: on_event: {missing}", "an absolute path, or a name on PATH")
    else:
        yield good("on_event", f"{cluster.on_event[0]} can be run")
