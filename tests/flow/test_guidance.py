"""Guidance on an interval, and that nothing is computed which is not combined."""

import pytest
import torch

from stx.flow.guidance import combine, guided_velocity

NULL = 7


class Recorder:
    """A velocity whose value tells its labels, and which writes down what it was asked."""

    def __init__(self) -> None:
        self.calls = []

    def __call__(self, noisy: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.calls.append((t.tolist(), labels.tolist()))
        return noisy + labels.view(-1, 1, 1, 1)


def ask(t: float, *, guidance: float, interval: tuple[float, float] = (0.2, 0.6)) -> tuple[list[float], Recorder]:
    recorder = Recorder()
    labels = torch.tensor([1, 3])
    at = guided_velocity(recorder, labels, null_label=NULL, guidance=guidance, interval=interval)
    return at(torch.zeros(2, 1, 1, 1), t).flatten().tolist(), recorder


@pytest.mark.parametrize("t", [0.2, 0.4, 0.6])
def test_inside_the_interval_both_passes_are_one_batch_with_the_null_label(t):
    velocity, recorder = ask(t, guidance=3.0)
    [(times, labels)] = recorder.calls
    assert labels == [1, 3, NULL, NULL]
    assert times == pytest.approx([t] * 4)
    assert velocity == [NULL + 3 * (1 - NULL), NULL + 3 * (3 - NULL)]


@pytest.mark.parametrize("t", [0.0, 0.19, 0.61, 1.0])
def test_outside_the_interval_only_the_conditional_pass_is_made(t):
    velocity, recorder = ask(t, guidance=3.0)
    [(_, labels)] = recorder.calls
    assert labels == [1, 3]
    assert velocity == [1, 3]


def test_guidance_1_makes_no_second_pass_anywhere():
    velocity, recorder = ask(0.4, guidance=1.0, interval=(0.0, 1.0))
    [(_, labels)] = recorder.calls
    assert labels == [1, 3]
    assert velocity == [1, 3]


def test_guidance_0_is_the_unconditional_velocity():
    conditional, unconditional = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(combine(conditional, unconditional, guidance=0), unconditional)
    torch.testing.assert_close(combine(conditional, unconditional, guidance=1), conditional)
