"""The product under one fault at one place, for every kind of fault and place: an untouched run is traced, and each of
its operations fails once (tests/integration/faulty.py). CI takes a seeded sample, --full takes all of them.

What must hold: nobody hangs, nobody shows a traceback, no attempt is lost or doubled, a full disk is NO_SPACE and a
broken one NODE, short writes and clocks that jump change nothing, and in the end the payload is that of the untouched
run. Workers that import torch meet the same faults in tests/integration/test_chaos.py.
"""

import json
import os
import random
import re
import time

import pytest

from tests.integration import faulty
from tests.integration.faulty import COORDINATOR, Run

FAULTS = ("enospc", "eio", "short", "clock")
HARMLESS = ("short", "clock")
CAUSES = {"enospc": "NO_SPACE", "eio": "NODE"}
SEED = int(os.environ.get("STX_FAULT_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """The places of an untouched run, and its digests."""
    return faulty.places(tmp_path_factory.mktemp("untouched") / "run")


def check(run, fault, place, *, digests):
    """Submit with the fault until everything is done, and look at what is left."""
    said = faulty.until_done(run, faulty.ticket(fault, place))
    told = "\n".join(one.words for one in said)
    what = f"{fault} at {place}: {[one.code for one in said]} {run.endings()}\n{told}"
    assert [one["fault"] for one in run.happened()] == [fault], what
    assert said[-1].code == 0 and all(one.code in (0, 2) for one in said), what
    assert "Traceback" not in told and "unexpected error" not in told, what
    assert len(said) == 1 or "error: /" in told, f"it must say which file\n{what}"
    assert run.digests() == digests, what
    *failed, last = run.endings()
    assert last == "COMPLETED" and set(failed) <= {CAUSES.get(fault)} and len(failed) <= 1, what
    if place.program == COORDINATOR and place.operation != "spawn":
        assert not failed, f"what a coordinator could not write cost an attempt\n{what}"
    if fault in HARMLESS:
        assert len(said) == 1 and not failed, what
    deadline = time.monotonic() + 20
    while run.processes():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def cases(places):
    return [(fault, place) for place in places for fault in FAULTS if faulty.can_strike(fault, place)]


@pytest.mark.slow
def test_one_fault_at_one_place_costs_nothing_a_sample(traced, tmp_path):
    places, digests = traced
    chooser = random.Random(SEED)
    print(f"seed {SEED}")
    for program in (*faulty.PROGRAMS, COORDINATOR):
        fault, place = chooser.choice([case for case in cases(places) if case[1].program == program])
        check(Run(tmp_path / f"{len(list(tmp_path.iterdir()))}"), fault, place, digests=digests)


@pytest.mark.full
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("program", faulty.PROGRAMS)
def test_one_fault_at_any_place_costs_nothing(traced, tmp_path, program):
    places, digests = traced
    here = [case for case in cases(places) if case[1].program == program]
    assert len(here) > 20
    for number, (fault, place) in enumerate(here):
        check(Run(tmp_path / str(number)), fault, place, digests=digests)


def test_every_file_of_a_run_came_by_ways_that_have_fault_points(traced, tmp_path):
    """What C or Rust made by themselves would be missing from the trace."""
    run = Run(tmp_path / "run")
    (run.tickets / "trace").mkdir()
    assert run.submit().code == 0
    traces = [path.read_text() for path in (run.tickets / "trace").iterdir()]
    made = [path for path in run.store.rglob("*") if path.is_file() and "/code/" not in str(path)]
    assert len(made) > 15
    assert [path for path in made if not any(f'"{path}"' in trace for trace in traces)] == []


@pytest.mark.slow
@pytest.mark.parametrize("end", ["exit 1", "kill -9 $PPID"], ids=["said", "unsaid"])
def test_a_full_disk_is_no_space_and_waited_for_also_where_nobody_could_say_so(tmp_path, end):
    """It is full for all processes: the worker has a reserve for its last word, a killed one leaves none."""
    run = Run(tmp_path / "run")
    full, once, away = run.tickets / "full", tmp_path / "once", tmp_path / "away"
    # In a session of its own: the supervisor ends all that its ranks left behind, which this must not be any more.
    clear = f"setsid sh -c 'touch {away}; sleep 3; rm {full}' > /dev/null 2>&1 &"
    clear += f" until test -e {away}; do sleep 0.1; done;"
    program = f"test -e {once} || {{ touch {once} {full}; {clear} {end}; }}; echo 1 > $STX_OUTPUT/a"
    stage = {"kind": "command", "argv": ["sh", "-c", program]}
    (run.folder / "e.yaml").write_text(json.dumps({"name": "one", "stages": {"only": stage}}))
    said = run.submit()
    assert said.code == 0 and run.endings() == ["NO_SPACE", "COMPLETED"], said.words
    assert re.search("No space left|the disk is full", run.told(1) + said.words), said.words
