"""The guided_teacher step: the teacher on the rows inside the window only, against on all rows with the others masked.

    python tools/bench/step.py [--repetitions 5] [--threads 1] [--rows-inside 3]

SiT-S/2 on 4x32x32 latents, 1,000 classes, batch 8, student block 6, teacher block 8, window [0.4, 0.7], projector
2048, fp32, AdamW. The same batch, the same weights, the same loss. t is stratified, (row + 0.5) / 8, so that 3 of 8
rows are inside: a little more than the 2.4 that uniform t has on average, which is to the disadvantage of what is
measured. `--rows-inside 2` is the nearest count below.

"All rows" is our restatement of a loop that runs its teacher on the whole batch and masks per sample; both stop at
the teacher's block. Repetitions alternate; medians are printed. Must: at least 1.15x.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from stx.alignment import guided_teacher
from stx.alignment.base import AlignmentOutput
from stx.alignment.guided_teacher import GuidedTeacher, guided_target, teacher_features
from stx.data.loader import Batch
from stx.flow.interpolant import noisy_at, velocity_target
from stx.flow.objective import diffusion_loss
from stx.model.blocks import initialised
from stx.model.sit import SiT
from stx.sizes import parse_model

ROWS, LOW, HIGH = 8, 0.4, 0.7
NETWORK = {"in_channels": 4, "input_size": 32, "num_classes": 1000}
OPTIONS = {
    "student_block": 6,
    "teacher_block": 8,
    "guidance": 5.0,
    "projector_width": 2048,
    "weight": 0.5,
    "window_reduction": "in_window",
}
MUST = 1.15


class AllRows(nn.Module):
    """The same term from a teacher that runs on every row: losses outside the window are multiplied by zero."""

    def __init__(self, method: GuidedTeacher) -> None:
        super().__init__()
        self.method = method
        self.taps = method.taps

    def forward(self, batch: Batch, hidden: Mapping[int, Tensor]) -> AlignmentOutput:
        """hidden {student_block: (B, T, D)}."""
        noisy, (teacher,) = noisy_at(batch.latents, batch.noise, batch.t, interpolant="linear"), self.method.held
        features = teacher_features(teacher, noisy, batch.t, batch.labels, block=self.method.teacher_block)
        target = guided_target(features, guidance=self.method.guidance)
        losses = diffusion_loss(self.method.projector(hidden[self.taps[0]]), target)
        term = self.method.weight * (losses * batch.in_window).sum() / batch.window_rows
        return AlignmentOutput(terms={"guided_teacher": term}, numbers={})


def stratified_batch(rows_inside: int) -> Batch:
    """8 rows with t = (row + 0.5) / 8, of which 3 are inside; one is moved to 0.3 for 2."""
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, ROWS, 4, 32, 32, generator=generator)
    t = (torch.arange(ROWS) + 0.5) / ROWS
    if rows_inside == 2:
        t[3] = 0.3
    labels = torch.randint(0, 1000, (ROWS,), generator=generator)
    in_window = (t >= LOW) & (t <= HIGH)
    assert in_window.sum() == rows_inside, f"{in_window.sum()} rows are inside"
    return Batch(
        first=0,
        samples=torch.arange(ROWS),
        latents=latents,
        noise=noise,
        t=t,
        labels=labels,
        dropped_labels=labels,
        in_window=in_window,
        window_rows=rows_inside,
        global_batch=ROWS,
        features=None,
    )


def awake(model: SiT) -> SiT:
    """Not zero where a fresh SiT is, so that the loss depends on the blocks and the label."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return model


def make_step(batch: Batch, *, all_rows: bool) -> Callable[[], float]:
    """A training step on `batch` as a function that returns its loss; equal initial weights for both ways."""
    shape = parse_model("SiT-S/2")
    student, teacher = (awake(initialised(lambda: SiT(shape, **NETWORK), seed=seed)) for seed in (0, 1))
    method = initialised(
        lambda: guided_teacher.build(OPTIONS, shape=shape, **NETWORK, interpolant="linear", teacher=teacher), seed=2
    )
    alignment = AllRows(method) if all_rows else method
    optimizer = torch.optim.AdamW([*student.parameters(), *method.parameters()], lr=1e-4)

    def step() -> float:
        noisy = noisy_at(batch.latents, batch.noise, batch.t, interpolant="linear")
        output = student(noisy, batch.t, batch.dropped_labels, taps=alignment.taps)
        diffusion = (
            diffusion_loss(
                output.velocity, velocity_target(batch.latents, batch.noise, batch.t, interpolant="linear")
            ).sum()
            / ROWS
        )
        loss = diffusion + alignment(batch, output.hidden).terms["guided_teacher"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def timed(step: Callable[[], float]) -> tuple[float, float]:
    """Seconds and loss of one step."""
    start = time.perf_counter()
    loss = step()
    return time.perf_counter() - start, loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows-inside", type=int, choices=(2, 3), default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    batch = stratified_batch(arguments.rows_inside)
    steps = {"window rows": make_step(batch, all_rows=False), "all rows": make_step(batch, all_rows=True)}
    first = {name: timed(step)[1] for name, step in steps.items()}  # warm-up; the losses before any update
    difference = abs(first["window rows"] / first["all rows"] - 1)
    assert difference < 1e-6, f"the losses differ: {first}"
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.repetitions):
        for name, step in steps.items():
            seconds[name].append(timed(step)[0])
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        spread = f"{min(seconds[name]):.3f} to {max(seconds[name]):.3f}"
        print(f"{name:12} {median:7.3f} s/step ({spread})   first loss {first[name]:.7f}")
    ratio = medians["all rows"] / medians["window rows"]
    inside = f"{arguments.rows_inside} of {ROWS} rows inside"
    print(f"guided_teacher step, SiT-S/2, {inside}, {arguments.threads} thread(s): {ratio:.2f}x (must: {MUST}x)")


if __name__ == "__main__":
    main()
