"""What an alignment is to the training loop, and how a loss inside a window of t becomes a term.

An alignment adds terms to the diffusion loss. It is an nn.Module that owns its projector; a frozen teacher is held
aside, no part of its parameters. Every term is already weighted, and is a sum over samples divided by a number that
all ranks know without talking, so the terms of all micro-batches and ranks add up to the term of the global batch,
exactly, however it is cut.

The window is an interval of t. The rows of a batch inside it are `batch.in_window`, and `batch.window_rows` counts
them over the GLOBAL batch; both are False and 0 past the stop step. `window_reduction` says what becomes of the
losses l_i of the rows:

    in_window    sum of l_i inside / rows inside
                 the mean over the rows inside, the loss as the paper describes it; the default
    over_batch   sum of l_i inside / global batch
                 zero outside, mean over all rows: in_window times the share of rows inside
    released     sum of ALL l_i / global batch * rows inside / global batch
                 what the released code of Self-Transcendence really computes: it multiplies losses of shape (B,) by a
                 mask of shape (B, 1, 1, 1), which broadcasts to (B, 1, 1, B), and the mean of that is
                 mean(l) * mean(mask). The window selects no rows then: every t is aligned, with the weight times the
                 share of rows inside. Which of these made the published numbers is not known. The released code takes
                 both means per rank; here they are those of the global batch, so that the world size does not matter.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from torch import Tensor

from stx.data.loader import Batch


class AlignmentOutput(NamedTuple):
    """terms: weighted scalars for the loss; numbers: detached, for the log. Both add up over micro-batches, ranks."""

    terms: dict[str, Tensor]
    numbers: dict[str, Tensor]


class Alignment(Protocol):
    """A method. `taps` are the blocks of the student whose hidden states (B, T, D) it is called with.

    At weight 0, or with no row of the global batch inside the window, it returns no terms and computes nothing.
    Otherwise its terms reach all of its parameters, also where this micro-batch has no row inside, so that all ranks
    have gradients of the same parameters.
    """

    taps: tuple[int, ...]

    def __call__(self, batch: Batch, hidden: Mapping[int, Tensor]) -> AlignmentOutput:
        """The terms of one micro-batch."""
        ...

    def after_step(self, step: int) -> None:
        """Called after each optimizer step, for methods that follow the student."""
        ...


def aligned_rows(batch: Batch, *, window_reduction: str) -> Tensor | slice:
    """Index of the rows of this micro-batch whose losses count: those inside the window; all for `released`."""
    if window_reduction == "released":
        return slice(None)
    return batch.in_window.nonzero().squeeze(1)


def aligned_count(batch: Batch, *, window_reduction: str) -> int:
    """The number of rows of the global batch whose losses count."""
    return batch.global_batch if window_reduction == "released" else batch.window_rows


def window_term(losses: Tensor, batch: Batch, *, window_reduction: str, weight: float) -> Tensor:
    """This micro-batch's part of the term, from the losses (R,) of its aligned rows: see the table above."""
    factor = {
        "in_window": 1 / batch.window_rows,
        "over_batch": 1 / batch.global_batch,
        "released": batch.window_rows / batch.global_batch**2,
    }[window_reduction]
    return weight * factor * losses.sum()
