"""Break anything, anywhere, any number of times: the same file again ends with the payloads of an untouched run.

tools/chaos does it (signals, fault points, errors of the disk, stalls, damaged files, second coordinators); here it is
given a seed. The seed is printed; STX_CHAOS_SEED repeats its schedules.
"""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# What comes before training is finished from the start: the time goes into stages that are resumed.
KEPT = "images,vae,latents"


def chaos(experiment, folder, *, seed, runs, faults, limit, untouched=None):
    """Run the driver, against an untouched store if there is one; its JSON, and what it said."""
    command = [sys.executable, str(ROOT / "tools" / "chaos"), str(experiment), "--seed", str(seed)]
    command += ["--runs", str(runs), "--faults", str(faults), "--keep-stages", KEPT]
    command += ["--untouched", str(untouched)] if untouched else []
    command += ["--store-root", str(folder), "--json"]
    done = subprocess.run(command, env=os.environ | {"STX_CORES": "2"}, capture_output=True, text=True, timeout=limit)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)["runs"], done.stderr


def checked(experiment, folder, *, record_property, runs, **options):
    """Run, tell the figures, and hold them against what must be so; the number of faults."""
    seed = int(os.environ.get("STX_CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
    found, said = chaos(HERE / experiment, folder, seed=seed, runs=runs, **options)
    kinds = sum((Counter(run["faults"]) for run in found), Counter())
    total, in_save = kinds.total(), sum(run["in_save"] for run in found)
    sums = {name: round(sum(run[name] for run in found)) for name in ("attempts", "submits", "named", "seconds")}
    record_property(
        "figures", f"seed {seed}: {len(found)} runs, {total} faults {dict(kinds)}, {in_save} inside a save; {sums}"
    )
    assert len(found) == runs
    for run in found:
        assert not (run["lost"] or run["wrong"] or run["cancelled"] or run["surprises"]), f"seed {seed}\n{said}"
    return total


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_is_broken_on_purpose_ends_with_the_payloads_of_an_untouched_one(micro, tmp_path, record_property):
    options = {"runs": 1, "faults": 16, "limit": 850, "untouched": micro.store}
    assert checked("micro.yaml", tmp_path, record_property=record_property, **options) > 0


@pytest.mark.full
@pytest.mark.timeout(9000)
def test_fifty_runs_with_five_hundred_faults_lose_nothing(tmp_path, record_property):
    options = {"runs": 50, "faults": 13, "limit": 8900}
    assert checked("tiny.yaml", tmp_path, record_property=record_property, **options) >= 500
