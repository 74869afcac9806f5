"""Tables at every width."""

from hypothesis import given
from hypothesis import strategies as st

from stx.verbs.columns import cut, cut_middle, table

HEADER = ("stage", "state", "images", "ETA", "why")
ROWS = [
    ("vanilla:seed=0,guidance=5", "RUNNING", "12,800", "20 s", ""),
    ("vanilla:seed=1,guidance=5", "FAILED", "-", "-", "USER: ValueError: the latents of shard 3 are too wide"),
]
RIGHT = frozenset({"images", "ETA"})
DROP = ("images", "ETA")


def drawn(width: int) -> list[str]:
    return [row.text for row in table(HEADER, ROWS, right=RIGHT, width=width, drop=DROP)]


def test_no_limit_cuts_nothing() -> None:
    assert drawn(0)[2].endswith("are too wide")


def test_columns_go_in_the_order_given_and_the_reason_is_cut_last() -> None:
    assert drawn(80)[0].split() == ["stage", "state", "images", "ETA", "why"]
    assert drawn(60)[0].split() == ["stage", "state", "ETA", "why"]
    assert drawn(52)[0].split() == ["stage", "state", "why"]
    assert drawn(52)[2].endswith("...")


def test_name_is_cut_in_the_middle_when_nothing_else_can_go() -> None:
    (first, second) = (line.split()[0] for line in drawn(45)[1:])
    assert first.startswith("vanill") and first.endswith("ance=5")
    assert first != second or len(first) < 25


@given(st.integers(1, 120))
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    assert max(len(line) for line in drawn(width)) <= width


@given(st.text(max_size=30), st.integers(0, 40))
def test_a_cut_text_has_the_width_it_was_cut_to(text: str, width: int) -> None:
    for short in (cut(text, width), cut_middle(text, width)):
        assert len(short) == min(len(text), width)
