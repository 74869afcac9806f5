"""The sample of the tests on clusters."""

from types import SimpleNamespace

import pytest

from tests import sampling


class Item:
    def __init__(self, name, seconds=None, *, full=False):
        self.nodeid = name
        marks = {"sampled": SimpleNamespace(kwargs={"seconds": seconds}) if seconds else None, "full": full or None}
        self.get_closest_marker = marks.get


def sampled(items, *, seed="7", markexpr="not full", monkeypatch):
    monkeypatch.setenv(sampling.SEED, seed)
    hook = SimpleNamespace(pytest_deselected=lambda items: None)
    config = SimpleNamespace(option=SimpleNamespace(markexpr=markexpr), hook=hook)
    left = list(items)
    sampling.sample(config, left)
    return [item.nodeid for item in left]


ITEMS = [Item(f"cluster {n}", 100) for n in range(20)] + [Item("quick"), Item("whole", 900, full=True)]


def test_a_sample_fits_the_budget_and_leaves_all_other_tests(monkeypatch):
    left = sampled(ITEMS, monkeypatch=monkeypatch)
    assert {"quick", "whole"} <= set(left)
    assert len(left) == 2 + sampling.BUDGET_S // 100


def test_the_same_seed_draws_the_same_tests_and_another_one_others(monkeypatch):
    first = sampled(ITEMS, monkeypatch=monkeypatch)
    assert sampled(ITEMS, monkeypatch=monkeypatch) == first
    assert sampled(ITEMS, seed="8", monkeypatch=monkeypatch) != first


@pytest.mark.parametrize("markexpr", ["", "slow", "full"])
def test_who_asks_for_tests_by_another_expression_gets_all_of_them(markexpr, monkeypatch):
    assert len(sampled(ITEMS, markexpr=markexpr, monkeypatch=monkeypatch)) == len(ITEMS)
