"""Windows and reductions: what both methods share."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stx.alignment.base import aligned_rows, window_term
from stx.data.loader import Batch

REDUCTIONS = ["in_window", "over_batch", "released"]
METHODS = ["velocity_head", "guided_teacher"]


def batch_of(mask: list[bool], *, window_rows: int, global_batch: int) -> Batch:
    """Rows of which only the window matters."""
    rows = torch.zeros(len(mask))
    fields = dict.fromkeys(("samples", "latents", "noise", "t", "labels", "dropped_labels"), rows)
    return Batch(
        first=0,
        **fields,
        in_window=torch.tensor(mask, dtype=torch.bool),
        window_rows=window_rows,
        global_batch=global_batch,
        features=None,
    )


def term(losses: torch.Tensor, batch: Batch, reduction: str) -> float:
    rows = aligned_rows(batch, window_reduction=reduction)
    return window_term(losses[rows], batch, window_reduction=reduction, weight=0.5).item()


def rows_of(mask: list[bool], losses: torch.Tensor) -> Batch:
    return batch_of(mask, window_rows=sum(mask), global_batch=len(mask))


masks = st.lists(st.booleans(), min_size=2, max_size=12).filter(any)


def losses_for(mask: list[bool]) -> torch.Tensor:
    return torch.rand(len(mask), generator=torch.Generator().manual_seed(len(mask)), dtype=torch.float64)


@given(mask=masks)
def test_in_window_is_the_mean_over_the_rows_inside(mask):
    losses = losses_for(mask)
    assert term(losses, rows_of(mask, losses), "in_window") == pytest.approx(0.5 * losses[mask].mean().item())


@given(mask=masks)
def test_over_batch_is_zero_outside_and_the_mean_over_all(mask):
    losses = losses_for(mask)
    expected = 0.5 * (losses * torch.tensor(mask)).mean().item()
    assert term(losses, rows_of(mask, losses), "over_batch") == pytest.approx(expected)


@given(mask=masks)
def test_released_is_the_broadcast_of_the_released_code(mask):
    losses = losses_for(mask)
    broadcast = losses * torch.tensor(mask).view(-1, 1, 1, 1)
    assert broadcast.shape == (len(mask), 1, 1, len(mask))
    assert term(losses, rows_of(mask, losses), "released") == pytest.approx(0.5 * broadcast.mean().item())


@given(mask=masks, cut=st.integers(1, 11), reduction=st.sampled_from(REDUCTIONS))
def test_terms_of_micro_batches_add_up_to_the_term_of_the_global_batch(mask, cut, reduction):
    losses, cut = losses_for(mask), min(cut, len(mask) - 1)
    whole = term(losses, rows_of(mask, losses), reduction)
    parts = [
        term(losses[rows], batch_of(mask[rows], window_rows=sum(mask), global_batch=len(mask)), reduction)
        for rows in (slice(cut), slice(cut, None))
    ]
    assert sum(parts) == pytest.approx(whole)


def gradients(alignment, model, batch: Batch, hidden) -> list[torch.Tensor]:
    """Of the alignment's terms, by every parameter of the student and of the alignment."""
    terms = alignment(batch, hidden(model, batch, alignment.taps)).terms
    parameters = [*model.blocks[:2].parameters(), *alignment.parameters()]
    return torch.autograd.grad(sum(terms.values()), parameters)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_only_released_aligns_samples_outside_the_window(method, reduction, awake, alignment, batch, hidden):
    model, method = awake(1), alignment(method, window_reduction=reduction)
    before = batch()
    outside = (~before.in_window).view(-1, 1, 1, 1)
    after = replace(before, latents=torch.where(outside, before.latents + 1, before.latents))
    pairs = zip(gradients(method, model, before, hidden), gradients(method, model, after, hidden), strict=True)
    same = all(torch.equal(first, second) for first, second in pairs)
    assert same == (reduction != "released")


def halves(batch: Batch) -> list[Batch]:
    """Two micro-batches of one global batch."""
    names = ("samples", "latents", "noise", "t", "labels", "dropped_labels", "in_window")
    middle = len(batch.t) // 2
    cuts = (slice(middle), slice(middle, None))
    return [replace(batch, **{name: getattr(batch, name)[cut] for name in names}) for cut in cuts]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_methods_add_up_over_micro_batches(method, reduction, awake, alignment, batch, hidden):
    model, method = awake(1), alignment(method, window_reduction=reduction)
    whole = method(batch(), hidden(model, batch(), method.taps))
    parts = [method(part, hidden(model, part, method.taps)) for part in halves(batch())]
    for kind in ("terms", "numbers"):
        for name, value in getattr(whole, kind).items():
            torch.testing.assert_close(sum(getattr(part, kind)[name] for part in parts), value)


@pytest.mark.parametrize("method", METHODS)
def test_a_micro_batch_without_a_row_inside_still_reaches_every_parameter(method, awake, alignment, batch, hidden):
    model, method = awake(1), alignment(method)
    others = replace(batch((0.1, 0.8)), window_rows=3, global_batch=8)
    for gradient in gradients(method, model, others, hidden):
        assert gradient.abs().max() == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_without_a_row_of_the_global_batch_inside_there_is_no_term(method, reduction, alignment, batch):
    output = alignment(method, window_reduction=reduction)(batch((0.1, 0.8)), {})
    assert output == ({}, {})


@pytest.mark.parametrize("method", METHODS)
def test_weight_scales_the_term(method, awake, alignment, batch, hidden):
    model = awake(1)
    [full] = alignment(method, weight=1.0)(batch(), hidden(model, batch(), (2,))).terms.values()
    [half] = alignment(method, weight=0.5)(batch(), hidden(model, batch(), (2,))).terms.values()
    torch.testing.assert_close(half, full / 2)
