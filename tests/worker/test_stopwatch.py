import time

import torch
from torch import nn

from stx.worker.stopwatch import Stopwatch


class Slow(nn.Module):
    def forward(self, x):
        time.sleep(0.02)
        return x


def test_the_time_of_all_passes_since_the_last_reading_is_told():
    module = Slow()
    watch = Stopwatch(module, device=torch.device("cpu"))
    for _ in range(2):
        module(torch.zeros(1))
    assert 0.04 <= watch.read() < 1.0
    assert watch.read() == 0.0
