"""Tests on a real cluster mostly wait. CI takes a seeded sample of them, as many as fit its minutes; --full takes all.

A test says how long it takes, `@pytest.mark.sampled(seconds=40)`; `-m "not full"` samples, and nothing else does.
"""

import os
import random

import pytest

BUDGET_S = 180.0  # of test time, on Slurm and on Ray; the test processes share it
SEED = "STX_SAMPLE_SEED"


def draw_seed() -> None:
    """Before processes are started, so that all of them draw the same tests."""
    os.environ.setdefault(SEED, str(random.SystemRandom().randrange(1, 10**6)))


def sample(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what does not fit the budget."""
    if config.option.markexpr != "not full":
        return
    found = sorted((item for item in items if seconds(item)), key=lambda item: item.nodeid)
    random.Random(int(os.environ[SEED])).shuffle(found)
    left, out = BUDGET_S, []
    for item in found:
        if seconds(item) <= left:
            left -= seconds(item)
        else:
            out.append(item)
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]


def seconds(item: pytest.Item) -> float:
    """How long it says that it takes; 0 for one that always runs, or that is deselected anyway."""
    mark = item.get_closest_marker("sampled")
    return float(mark.kwargs["seconds"]) if mark is not None and item.get_closest_marker("full") is None else 0.0
