"""Fixed padded chunks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stx.model import rows


@given(count=st.integers(0, 50), batch=st.integers(1, 20))
def test_spans_cover_every_row_once_and_all_but_the_last_are_whole(count: int, batch: int) -> None:
    spans = list(rows.spans(count, batch=batch))
    assert [row for first, last in spans for row in range(first, last)] == list(range(count))
    assert all(last - first == batch for first, last in spans[:-1])


def test_padding_repeats_the_last_row() -> None:
    assert rows.padded(torch.tensor([[1], [2]]), batch=4).tolist() == [[1], [2], [2], [2]]


def test_more_rows_than_a_chunk_are_our_mistake() -> None:
    with pytest.raises(AssertionError, match=r"1\.\.2 rows"):
        rows.padded(torch.zeros(3, 1), batch=2)


def test_a_function_always_sees_whole_chunks() -> None:
    seen = []

    def double(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        seen.append((len(left), len(right)))
        return left + right

    result = rows.chunked(double, torch.arange(7), torch.arange(7), batch=3)
    assert seen == [(3, 3)] * 3
    assert torch.equal(result, 2 * torch.arange(7))


def test_the_same_row_has_the_same_bits_in_any_chunk() -> None:
    torch.manual_seed(0)
    layer, data = torch.nn.Linear(64, 64), torch.randn(23, 64)
    with torch.no_grad():
        whole = rows.chunked(layer, data, batch=16)
        tail = rows.chunked(layer, data[16:], batch=16)
    assert torch.equal(whole[16:], tail)
