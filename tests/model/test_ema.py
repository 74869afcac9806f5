"""The moving average of weights."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from stx.model import ema


def tensors(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((3, 2), (5,), ())]


def updated(average: list[torch.Tensor], weights: list[torch.Tensor], *, decay: float) -> list[torch.Tensor]:
    result = [part.clone() for part in average]
    ema.update(result, weights, decay=decay)
    return result


@given(decay=st.floats(0, 1), seed=st.integers(0, 2**31))
def test_update_is_the_formula(decay, seed):
    average, weights = tensors(seed), tensors(seed + 1)
    for got, old, new in zip(updated(average, weights, decay=decay), average, weights, strict=True):
        torch.testing.assert_close(got, decay * old + (1 - decay) * new)


@given(decay=st.floats(0, 1), scale=st.floats(-3, 3), seed=st.integers(0, 2**31))
def test_update_is_linear(decay, scale, seed):
    a, b, x, y = (tensors(seed + offset) for offset in range(4))
    left = updated(
        [p + scale * q for p, q in zip(a, b, strict=True)],
        [p + scale * q for p, q in zip(x, y, strict=True)],
        decay=decay,
    )
    right = zip(updated(a, x, decay=decay), updated(b, y, decay=decay), strict=True)
    for got, (first, second) in zip(left, right, strict=True):
        torch.testing.assert_close(got, first + scale * second)


def test_weights_are_not_touched_and_no_gradient_is_kept():
    weights = [torch.nn.Parameter(torch.ones(3))]
    average = [torch.zeros(3)]
    ema.update(average, weights, decay=0.75)
    assert average[0].tolist() == [0.25] * 3
    assert not average[0].requires_grad
    assert weights[0].tolist() == [1.0] * 3


def test_constant_weights_are_a_fixed_point():
    weights = [torch.full((4,), 1.3)]
    average = [part.clone() for part in weights]
    for _ in range(10):
        ema.update(average, weights, decay=0.98)
    assert torch.equal(average[0], weights[0])
