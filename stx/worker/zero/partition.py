"""The fp32 state of one rank, by parameter name: what is saved, restored, clipped, averaged, whatever the ZeRO stage.

Sections: the masters, Adam's two moments, and one EMA for each decay, all flat and laid out alike (layouts.py). EMAs
start as a copy of the masters and are moved by one lerp of the whole partition after each step; a step that is
discarded moves nothing.

With bf16 weights DeepSpeed makes the masters from weights that it has rounded already. The exact ones are put back
here; the working weights are what rounding the masters gives, so they are right as they are.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from stx.model import ema
from stx.worker.checkpoint import Slice
from stx.worker.zero.layouts import Layout, Span, unknown

MASTER, MOMENTS = "master", ("exp_avg", "exp_avg_sq")


class Partition:
    """`shapes`: of all trained parameters. `emas`: section name by decay. `exact`: fp32 weights, if not the working."""

    def __init__(
        self,
        layout: Layout,
        *,
        shapes: Mapping[str, Sequence[int]],
        emas: Mapping[float, str],
        exact: Mapping[str, Tensor] | None,
    ) -> None:
        self._layout = layout
        self._emas = emas
        self.shapes = shapes
        _check(layout)
        self._flat = {MASTER: layout.master.detach()}
        if exact is not None:
            for span in layout.spans:
                values = exact[span.name].reshape(-1)[span.offset : span.offset + span.count]
                self._values(MASTER, span).copy_(values)
        self._flat |= {section: self._flat[MASTER].clone() for section in emas.values()}
        moments = {section: torch.zeros_like(self._flat[MASTER]) for section in MOMENTS}
        self._flat |= moments
        self._steps = layout.install(moments)

    @property
    def sections(self) -> tuple[str, ...]:
        """The names of all sections."""
        return (MASTER, *MOMENTS, *self._emas.values())

    @property
    def updates(self) -> int:
        """Adam's step."""
        return int(self._steps[0])

    def set_updates(self, updates: int) -> None:
        """Set Adam's step."""
        for step in self._steps:
            step.fill_(float(updates))

    def written(self) -> list[Slice]:
        """This rank's part of a checkpoint, as views. The parts of all ranks are the whole, without overlap."""
        return self._slices(self._layout.written, self.sections)

    def restorable(self) -> list[Slice]:
        """What this rank needs from a checkpoint beside the weights that were in the module, as views to be filled."""
        return self._slices(self._layout.spans, self.sections[1:])

    def square_norm(self) -> Tensor:
        """This rank's part of the sum of squared gradients, not waited for. Not finite if any of them is not."""
        norms = torch._foreach_norm(self._layout.gradients())
        return torch.stack(norms).square().sum() / self._layout.copies

    def scale_gradients(self, factor: float) -> None:
        """Multiply the gradients."""
        torch._foreach_mul_(self._layout.gradients(), factor)

    def step(self) -> None:
        """Adam, then the EMAs."""
        self._layout.step()
        for decay, section in self._emas.items():
            ema.update([self._flat[section]], [self._flat[MASTER]], decay=decay)

    def discard_gradients(self) -> None:
        """Forget this step's gradients, as if its batch had never been offered; in place of `step`."""
        self._layout.discard()

    def _slices(self, spans: Sequence[Span], sections: Sequence[str]) -> list[Slice]:
        return [
            Slice(section, span.name, span.offset, self._values(section, span))
            for section in sections
            for span in spans
        ]

    def _values(self, section: str, span: Span) -> Tensor:
        return self._flat[section].narrow(0, span.start, span.count)


def _check(layout: Layout) -> None:
    """Refuse another DeepSpeed whose masters are not where the layout says: an StxError."""
    fits = layout.master.dtype == torch.float32
    for span in layout.spans:
        theirs = layout.working(span)
        ours = layout.master.detach()[span.start : span.start + span.count]
        fits = fits and torch.equal(ours.to(theirs.dtype), theirs)
    if not fits:
        raise unknown()
