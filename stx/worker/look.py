"""One milestone under inspection: a network, what it is shown, and functions over rows of that at one t or at every t.

A function takes (x_t (R, C, h, w), t (R,), labels (R,)) and gives a tensor (R, ...).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stx.flow.interpolant import noisy_at
from stx.model import rows
from stx.model.sit import SiT
from stx.worker.device import device
from stx.worker.progress import Progress
from stx.worker.subject import Rows, Subject

Function = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Look:
    """`progress` counts rows, at each t anew."""

    progress: Progress
    subject: Subject
    model: SiT

    @property
    def science(self) -> Any:
        """The options."""
        return self.progress.attempt.science

    @property
    def blocks(self) -> list[int]:
        """The blocks that are looked at, ascending, from 1."""
        asked = self.science["blocks"]
        return list(range(1, self.model.shape.depth + 1)) if asked == "all" else list(asked)

    @property
    def pictured(self) -> Rows:
        """The rows that pictures are made of."""
        return self.subject.held_out.first(self.science["num_images"])

    def hidden(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Hidden states (R, B, tokens, D) after the blocks."""
        found = self.model(x, t, labels, taps=self.blocks, stop_block=self.blocks[-1]).hidden
        return torch.stack([found[block] for block in self.blocks], dim=1)

    def at_every_time(self, made: Callable[[float], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """(n, T, ...): what `made` makes of the pictured rows at each t."""
        return np.stack([made(t) for t in self.science["times"]], axis=1)

    def over_rows(self, seen: Rows, function: Function, *, t: float) -> NDArray[Any]:
        """`function` over rows at t (N, ...)."""
        return np.concatenate(list(self._chunks(seen, function, t=t)))

    def deviations(self, function: Function, *, t: float) -> NDArray[np.float64]:
        """`function` over the pictured rows at t (n, ...), less its mean over all held-out rows."""
        pictured, seen = self.science["num_images"], self.subject.held_out
        kept: list[NDArray[Any]] = []
        total: NDArray[np.float64] | float = 0.0
        for chunk in self._chunks(seen, function, t=t):
            kept.append(chunk[: max(0, pictured - sum(map(len, kept)))])
            total = total + chunk.sum(axis=0, dtype=np.float64)
        return np.concatenate(kept) - total / len(seen.labels)

    @torch.no_grad()
    def _chunks(self, seen: Rows, function: Function, *, t: float) -> Iterator[NDArray[Any]]:
        """The same in padded chunks, the padding cut off."""
        batch = self.science["batch"]
        times, interpolant = torch.full((batch,), t, device=device()), self.progress.attempt.where["interpolant"]
        for first, last in rows.spans(len(seen.labels), batch=batch):
            latents, noise, labels = (
                rows.padded(value[first:last], batch=batch).to(device())
                for value in (seen.latents, seen.noise, seen.labels)
            )
            noisy = noisy_at(latents, noise, times, interpolant=interpolant)
            yield function(noisy, times, labels)[: last - first].cpu().numpy()
            self.progress.advance(last - first)
