"""Saving and restoring a checkpoint: seconds against its bytes, and against a plain file of the same bytes.

    python tools/bench/checkpoint.py [--model SiT-S/2] [--ranks 1] [--rounds 5] [--folder DIR] [--every-s 30 600]

What one of `--ranks` ranks writes of a SiT on 4x32x32 latents with 1,000 classes: fp32 masters, two moments, one EMA,
cut as ZeRO 1 cuts them. Only one rank's part is written here; W ranks write W of them at once.

    save            Keeper.save: write, digest, fsync, manifest, rename, remove the oldest
    plain write     the same bytes by write(2), in pieces of 8 MiB, fsync, and a rename over the last one
    restore         Keeper.restore (which reads and digests every file), then every slice filled from it
    plain read      the same bytes by read(2), in pieces of 8 MiB

Contenders run in turn; what is read has been dropped from the page cache; medians. Training stands still while it
saves: this stall is compared with the interval of the cluster file, and with what `max_stall` makes of the interval.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from stx.config.cluster import Checkpoint as Settings
from stx.model.sit import SiT
from stx.sizes import parse_model
from stx.worker.checkpoint import Identity, Keeper, Slice
from stx.worker.ranks import ALONE

SECTIONS = ("master", "exp_avg", "exp_avg_sq", "ema")
IDENTITY = Identity(key="bench", recipe=1, science_digest="bench")
PIECE = 8 * 2**20
GB = 1e9


class State:
    """What rank 0 owns: a flat tensor for each section, and its slices by parameter name."""

    def __init__(self, model: str, *, ranks: int) -> None:
        with torch.device("meta"):
            network = SiT(parse_model(model), in_channels=4, input_size=32, num_classes=1000)
        trained = {name: one for name, one in network.named_parameters() if one.requires_grad}
        self.shapes = {name: list(one.shape) for name, one in trained.items()}
        size = -(-sum(one.numel() for one in trained.values()) // ranks)
        self.flat: dict[str, Tensor] = {section: torch.empty(size).uniform_() for section in SECTIONS}
        self.slices: list[Slice] = []
        for section, flat in self.flat.items():
            begin = 0
            for name, one in trained.items():
                mine = flat[begin : begin + one.numel()]
                if mine.numel():
                    self.slices.append(Slice(section, name, 0, mine))
                begin += one.numel()

    @property
    def nbytes(self) -> int:
        return sum(flat.nbytes for flat in self.flat.values())


class Contenders:
    """All four, in one folder."""

    def __init__(self, folder: Path, state: State) -> None:
        self.state = state
        self.keeper = Keeper(folder / "checkpoints", 1, IDENTITY, ALONE, keep=1)
        self.plain = folder / "plain"
        self.images = 0

    def save(self) -> None:
        self.images += 1
        self.keeper.save(images=self.images, slices=self.state.slices, shapes=self.state.shapes, progress={})

    def plain_write(self) -> None:
        new = self.plain.with_name("plain.new")  # as a save does: while it is written, the last one still stands
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT, 0o644)
        for flat in self.state.flat.values():
            data = memoryview(flat.numpy()).cast("B")
            for begin in range(0, len(data), PIECE):
                os.write(descriptor, data[begin : begin + PIECE])
        os.fsync(descriptor)
        os.close(descriptor)
        new.rename(self.plain)

    def restore(self) -> None:
        found = Keeper(self.keeper.folder, 2, IDENTITY, ALONE, keep=1).restore(accept_code=False)
        assert found is not None
        found.fill(self.state.slices)

    def plain_read(self) -> None:
        with self.plain.open("rb", buffering=0) as stream:
            piece = bytearray(PIECE)
            while stream.readinto(piece):
                pass

    def forget(self) -> None:
        """Drop all files from the page cache; they have been fsynced."""
        for path in [self.plain, *self.keeper.folder.glob("*/*")]:
            with path.open("rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(contenders: Contenders, *, rounds: int) -> tuple[dict[str, list[float]], int]:
    """Seconds of each contender, round by round (the first one warms up), and the most memory that a save added."""
    seconds: dict[str, list[float]] = {}
    added = 0
    for _ in range(rounds + 1):
        before = forget_peak()
        seconds.setdefault("save", []).append(timed(contenders.save))
        added = max(added, peak_bytes() - before)
        seconds.setdefault("plain write", []).append(timed(contenders.plain_write))
        contenders.forget()
        seconds.setdefault("restore", []).append(timed(contenders.restore))
        contenders.forget()
        seconds.setdefault("plain read", []).append(timed(contenders.plain_read))
    return {name: values[1:] for name, values in seconds.items()}, added


def timed(run: Callable[[], None]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def forget_peak() -> int:
    """Begin the peak of the resident set anew; what it is now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def ratio(seconds: Mapping[str, Sequence[float]], one: str, other: str) -> float:
    """The median of the rounds' ratios: what slows a whole round cancels."""
    return statistics.median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))


def print_stall(save_s: float, every_s: float, *, max_stall: float) -> None:
    interval = max(every_s, save_s * (1 / max_stall - 1))
    print(
        f"every_s {every_s:g}: a save is {save_s / every_s:.2%} of it; with max_stall {max_stall:g} the interval is "
        f"{interval:.0f} s and the stall {save_s / (save_s + interval):.2%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="SiT-S/2")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where to write; default: a temporary folder")
    parser.add_argument("--every-s", type=float, nargs="+", default=[30.0, 600.0])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    state = State(arguments.model, ranks=arguments.ranks)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        seconds, added = measure(Contenders(Path(folder), state), rounds=arguments.rounds)
    print(f"{arguments.model}, one of {arguments.ranks} rank(s): {state.nbytes / GB:.2f} GB a save")
    for name, values in seconds.items():
        median = statistics.median(values)
        spread = f"{min(values):.2f} to {max(values):.2f}"
        print(f"{name:12} {median:7.2f} s ({spread})   {state.nbytes / GB / median:6.2f} GB/s")
    print(f"save / plain write {ratio(seconds, 'save', 'plain write'):.2f}x", end="; ")
    print(f"restore / plain read {ratio(seconds, 'restore', 'plain read'):.2f}x", end="; ")
    print(f"memory a save added at most: {added / 2**20:.0f} MiB")
    for every_s in arguments.every_s:
        print_stall(statistics.median(seconds["save"]), every_s, max_stall=Settings().max_stall)


if __name__ == "__main__":
    main()
