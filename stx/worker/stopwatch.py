"""How long the forward passes of one module take, for metrics.jsonl. On a GPU by its own clock: nobody waits."""

import time

import torch
from torch import nn


class Stopwatch:
    """Measures every forward pass of a module from now on."""

    def __init__(self, module: nn.Module, *, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._seconds = 0.0
        self._began = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        module.register_forward_pre_hook(self._begin)
        module.register_forward_hook(self._end)

    def read(self) -> float:
        """Seconds since the last reading. Call it when the host has waited for a result of these passes anyway."""
        self._seconds += sum(first.elapsed_time(last) for first, last in self._events) / 1000
        found, self._seconds, self._events = self._seconds, 0.0, []
        return found

    def _begin(self, module: nn.Module, inputs: object) -> None:
        if self._on_gpu:
            self._events.append(tuple(torch.cuda.Event(enable_timing=True) for _ in range(2)))
            self._events[-1][0].record()
        else:
            self._began = time.perf_counter()

    def _end(self, module: nn.Module, inputs: object, output: object) -> None:
        if self._on_gpu:
            self._events[-1][1].record()
        else:
            self._seconds += time.perf_counter() - self._began
