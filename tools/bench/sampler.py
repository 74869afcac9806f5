"""Classifier-free guidance on t in [0, 0.65] against guidance at every t: seconds of sampling, side by side.

    python tools/bench/sampler.py [--model SiT-Ti/2] [--batch 4] [--steps 20] [--repetitions 3] [--threads 1]

4x32x32 latents, 1,000 classes, guidance 1.9, fp32. Where guidance acts a call has 2B rows, elsewhere B: of N calls with
M inside the interval the network sees N + M rows a sample instead of 2N. Their ratio, 2 / 1.65 = 1.21 for many steps,
is printed beside the measured one; a larger measured one is the price of larger batches, not work that was saved.
Contenders run in turn; medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from stx.model.blocks import initialised
from stx.model.sit import SiT
from stx.sizes import parse_model
from stx.stages.sample import Sampler, passes
from stx.times import SOLVERS
from stx.worker.sample import sampled

FULL, PART = (0.0, 1.0), (0.0, 0.65)
NETWORK = {"in_channels": 4, "input_size": 32, "num_classes": 1000}


def contender(model: SiT, sampler: Sampler, *, batch: int) -> Callable[[], object]:
    """Sampling one chunk, as the sample stage does."""
    numbers = np.arange(batch)
    labels = torch.from_numpy(numbers * 37 % NETWORK["num_classes"])
    options = {**vars(sampler)}
    return lambda: sampled(model, numbers, labels, seed=0, sampler=options, interpolant="linear")


def medians(contenders: dict[str, Callable[[], object]], *, repetitions: int) -> dict[str, float]:
    """Seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for repetition in range(repetitions + 1):  # the first warms up
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if repetition:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="SiT-Ti/2")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = initialised(lambda: SiT(parse_model(arguments.model), **NETWORK), seed=0).eval().requires_grad_(False)
    print(f"{arguments.model}, chunks of {arguments.batch}, {arguments.steps} steps, {arguments.threads} thread(s)")
    for solver in SOLVERS:
        samplers = {
            interval: Sampler(solver=solver, steps=arguments.steps, guidance=1.9, interval=interval)
            for interval in (FULL, PART)
        }
        made = {str(interval): contender(model, one, batch=arguments.batch) for interval, one in samplers.items()}
        full, part = medians(made, repetitions=arguments.repetitions).values()
        rows = passes(samplers[FULL]) / passes(samplers[PART])
        print(
            f"{solver:6} guidance everywhere {full:7.3f} s   in {list(PART)} {part:7.3f} s   "
            f"{full / part:.2f}x (rows: {rows:.2f}x)"
        )


if __name__ == "__main__":
    main()
