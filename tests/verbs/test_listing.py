"""Which stages are told of: folding, filters, orders, and whatever the screen, nothing is lost."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stx.coordinator.state import Status
from stx.coordinator.status import QUEUED, Line
from stx.errors import ConfigError
from stx.verbs import listing
from stx.verbs.listing import FOLD_FROM, STATES, Wish


def line(
    name: str, state: str = "READY", *, images: int | None = None, rate: float | None = None, eta: float | None = None
) -> Line:
    return Line(
        name=name,
        stage=name.split(":")[0],
        kind="train",
        key=name,
        state=state,
        why="",
        phase="",
        images=images,
        total=100 if images is not None else None,
        images_per_s=rate,
        eta_s=eta,
        loss=None,
        heartbeat_age_s=None,
        attempts=0,
        attempt=None,
        job_id=None,
        host=None,
        failed={},
    )


def sweep(states: Sequence[str], stage: str = "run") -> list[Line]:
    return [line(f"{stage}:seed={seed}", state) for seed, state in enumerate(states)]


def names(found: listing.Listing) -> list[str]:
    return [one.name for one in found.lines]


def test_every_state_of_a_stage_has_its_place() -> None:
    assert set(STATES) == {status.value for status in Status} | {QUEUED, listing.ENDED}


def test_a_large_sweep_is_one_line_and_its_failed_and_live_stages_are_told() -> None:
    lines = [line("first", "DONE"), *sweep(["DONE"] * 20 + ["FAILED", "RUNNING"] + ["WAITING"] * 20)]
    found = listing.listing(lines, Wish())
    assert [(one.name, one.size, one.counts["DONE"], one.state) for one in found.groups] == [("run", 42, 20, "FAILED")]
    assert names(found) == ["first", "run:seed=20", "run:seed=21"]
    assert found.left_out == {"DONE": 20, "WAITING": 20}
    assert names(listing.listing(lines, Wish(every=True))) == [one.name for one in lines]


def test_a_small_sweep_is_not_folded_and_of_a_thousand_live_stages_a_dozen_are_told() -> None:
    assert not listing.listing(sweep(["DONE"] * FOLD_FROM), Wish()).groups
    found = listing.listing(sweep(["RUNNING"] * 1000), Wish())
    assert len(found.lines) == FOLD_FROM
    assert found.left_out == {"RUNNING": 1000 - FOLD_FROM}


def test_a_filter_comes_before_folding() -> None:
    lines = sweep(["FAILED"] * 3 + ["DONE"] * 500)
    found = listing.listing(lines, listing.parse("failed", sort=None, every=False))
    assert not found.groups
    assert names(found) == ["run:seed=0", "run:seed=1", "run:seed=2"]


def test_group_adds_rates_and_tells_the_slowest_eta() -> None:
    one = listing.group(
        [
            line("r:s=0", "RUNNING", images=50, rate=10.0, eta=5.0),
            line("r:s=1", "RUNNING", images=10, rate=2.0, eta=45.0),
            line("r:s=2", images=0),
        ]
    )
    assert (one.share, one.images_per_s, one.eta_s) == (0.2, 12.0, 45.0)


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("", ["b:s=10", "b:s=2", "a"]),
        ("name", ["a", "b:s=2", "b:s=10"]),
        ("state", ["a", "b:s=2", "b:s=10"]),
        ("eta", ["b:s=2", "b:s=10", "a"]),
        ("rate", ["b:s=2", "b:s=10", "a"]),
    ],
)
def test_orders(sort: str, expected: list[str]) -> None:
    lines = [
        line("b:s=10", "DONE"),
        line("b:s=2", "RUNNING", rate=1.0, eta=9.0),
        line("a", "FAILED"),
    ]
    assert names(listing.listing(lines, Wish(sort=sort))) == expected


@pytest.mark.parametrize(
    ("states", "sort", "says"),
    [("FAILD", None, 'did you mean "FAILED"'), (",", None, "names no state"), (None, "speed", "known: name")],
)
def test_unknown_words_are_refused_with_the_known_ones(states: str | None, sort: str | None, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        listing.parse(states, sort=sort, every=False)


@given(
    st.lists(st.lists(st.sampled_from(STATES), min_size=1, max_size=40), min_size=1, max_size=8),
    st.integers(1, 40),
    st.sampled_from(["", *listing.SORTS]),
)
def test_what_is_told_fits_the_screen_and_what_is_not_is_counted(stages: list[list[str]], room: int, sort: str) -> None:
    lines = [one for number, states in enumerate(stages) for one in sweep(states, f"stage{number}")]
    found = listing.listing(lines, Wish(sort=sort), room=room)
    tables = [len(found.groups), len(found.lines)]
    height = sum(rows + 1 for rows in tables if rows) + bool(found.left_out)
    assert height <= max(room, 3)  # a group, its header, and what is left out are always told
    told = Counter(one.state for one in found.lines)
    assert told + Counter(found.left_out) == Counter(one.state for one in lines)
    missing = [STATES.index(state) for state in found.left_out]
    if room > 4 and not found.groups and missing and told:
        assert max(STATES.index(state) for state in told) <= min(missing)
