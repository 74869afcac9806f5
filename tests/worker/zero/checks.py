"""What stx relies on in DeepSpeed, as functions that hold for any ZeRO stage, precision and number of ranks.

The tests call them in their own process, which is one rank. As a program, `checks.py RANK WORLD FILE [[CHECK, STAGE,
PRECISION], ...]`, this runs them on one of several ranks, which find each other by FILE.
"""

import json
import math
import sys
import traceback

import torch
import torch.distributed as dist
from torch import nn

from stx.model import ema
from stx.worker.ranks import Ranks
from stx.worker.zero.engine import EngineOptions, make
from stx.worker.zero.partition import MOMENTS

LR, BETAS = 1e-2, (0.9, 0.99)
EMAS = {0.9: "ema", 0.5: "ema_0.5"}
ROWS, MICRO = 8, 2
TRAINED = ["unused", "sometimes", "0.weight", "0.bias", "2.weight", "2.bias"]
TOLERANCE = {"fp32": 1e-5, "bf16_autocast": 0.05, "bf16_weights": 0.05}


class Network(nn.Sequential):
    """Odd sizes, so that partitions are padded; a parameter that odd steps alone use; one that no step does."""

    def __init__(self):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__(nn.Linear(3, 5), nn.SiLU(), nn.Linear(5, 3))
        self.register_parameter("unused", nn.Parameter(torch.full((3,), 1 / 3)))
        self.register_parameter("sometimes", nn.Parameter(torch.full((1,), 1 / 3)))
        self.register_parameter("frozen", nn.Parameter(torch.ones(2), requires_grad=False))

    def forward(self, x, step):
        hidden = super().forward(x.to(self[0].weight.dtype)).float()
        if step % 2:
            hidden = hidden + self.sometimes
        return hidden.square().sum() / ROWS


def rows_of(step):
    return torch.sin(torch.arange(3.0 * ROWS).reshape(ROWS, 3) + step)


class Trainer:
    """Micro-batches, clipping aside, as the loop does it."""

    def __init__(self, stage, precision, *, weights=None):
        self.ranks = Ranks(dist.get_rank(), dist.get_world_size(), torch.device("cpu"))
        net = Network()
        net.load_state_dict(net.state_dict() | (weights or {}))
        options = EngineOptions(
            zero_stage=stage,
            precision=precision,
            micro_batch=MICRO,
            accumulation=ROWS // MICRO // self.ranks.size,
            lr=LR,
            betas=BETAS,
            weight_decay=0.0,
            emas=EMAS,
        )
        self.engine, self.partition = make(net, options, ranks=self.ranks)

    def offer(self, step, *, factor=1.0):
        """Forward and backward. The last rank multiplies its loss by `factor`."""
        mine = rows_of(step).chunk(self.ranks.size)[self.ranks.rank].split(MICRO)
        factor = factor if self.ranks.rank == self.ranks.size - 1 else 1.0
        for number, rows in enumerate(mine, start=1):
            self.engine.backward(factor * self.engine(rows, step) * self.ranks.size, scale_wrt_gas=False)
            if number < len(mine):
                self.engine.step()
        return math.sqrt(float(self.ranks.sum(self.partition.square_norm())))

    def step(self, step, *, factor=1.0):
        norm = self.offer(step, factor=factor)
        self.partition.step()
        return norm

    def loss(self, step):
        """Of the working weights, without training."""
        with torch.no_grad():
            return float(self.engine.module(rows_of(step), step))

    def state(self):
        """What this rank would save."""
        return {(one.section, one.name, one.offset): one.values.clone() for one in self.partition.written()}

    def whole(self):
        """Every section of every parameter, from all ranks' parts; fails where they do not fit together."""
        parts = [[*key, values.tolist()] for key, values in self.state().items()]
        found = {}
        for section, name, offset, values in sorted(part for rank in self.ranks.gather(parts) for part in rank):
            held = found.setdefault((section, name), [])
            assert len(held) == offset, f"{section}/{name} has {len(held)} elements before the part at {offset}"
            held += values
        shapes = self.partition.shapes
        return {(section, name): torch.tensor(one).reshape(shapes[name]) for (section, name), one in found.items()}

    def section(self, wanted):
        """One section of `whole`."""
        return {name: one for (section, name), one in self.whole().items() if section == wanted}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def check_slices(stage, precision):
    """The ranks' slices make every trained parameter in every section, once; a fresh master is the fp32 weight."""
    trainer = Trainer(stage, precision)
    whole = trainer.whole()
    sections = ("master", *MOMENTS, *EMAS.values())
    assert sorted(whole) == sorted((section, name) for section in sections for name in TRAINED)
    for name, parameter in Network().named_parameters():
        if name in TRAINED:
            assert all(torch.equal(whole[section, name], parameter) for section in ("master", *EMAS.values())), name


def check_adamw(stage, precision):
    """It trains as plain AdamW on the whole batch does, and the EMAs follow the masters, to the bit."""
    trainer, plain = Trainer(stage, precision), Network()
    averages = {decay: trainer.section("master") for decay in EMAS}
    adam = torch.optim.AdamW(plain.parameters(), lr=LR, betas=BETAS, weight_decay=0.0)
    for one in plain.parameters():
        one.grad = torch.zeros_like(one)  # DeepSpeed takes no gradient for one of zeros
    tolerance = TOLERANCE[precision]
    for step in range(5):
        adam.zero_grad(set_to_none=False)
        plain(rows_of(step), step).backward()
        expected = math.sqrt(sum(float(one.grad.square().sum()) for one in plain.parameters() if one.requires_grad))
        norm = trainer.step(step)
        assert math.isclose(norm, expected, rel_tol=tolerance), (step, norm, expected)
        adam.step()
        for decay, average in averages.items():
            ema.update([*average.values()], [*trainer.section("master").values()], decay=decay)
    for name, master in trainer.section("master").items():
        assert torch.allclose(master, plain.get_parameter(name), atol=tolerance), name
    for decay, section in EMAS.items():
        assert equal(trainer.section(section), averages[decay]), section
    assert trainer.partition.updates == 5
    assert math.isclose(trainer.loss(6), float(plain(rows_of(6), 6).detach()), rel_tol=10 * tolerance)


def check_discard(stage, precision):
    """After a batch with a bad gradient on one rank, everything is as if it had never been offered."""
    for factor in (math.nan, math.inf):
        offered, never = Trainer(stage, precision), Trainer(stage, precision)
        for step in (0, 1):
            assert offered.step(step) == never.step(step)
        before = offered.state()
        assert not math.isfinite(offered.offer(3, factor=factor))
        offered.partition.discard_gradients()
        assert equal(offered.state(), before)
        assert math.isfinite(offered.loss(3))
        for step in (2, 3, 4):
            assert offered.step(step) == never.step(step), step
            assert equal(offered.state(), never.state()), step
        assert offered.partition.updates == never.partition.updates == 5


def check_scaled(stage, precision):
    """Scaled gradients are what the step takes."""
    scaled, small = Trainer(stage, precision), Trainer(stage, precision)
    scaled.offer(1)
    scaled.partition.scale_gradients(0.5)
    scaled.partition.step()
    small.offer(1)
    before = float(small.partition.square_norm())
    small.partition.scale_gradients(0.5)
    assert math.isclose(float(small.partition.square_norm()), before / 4, rel_tol=1e-6)
    small.partition.step()
    assert equal(scaled.state(), small.state())
    moments = {key: value for key, value in scaled.state().items() if key[0] == "exp_avg"}
    plain = Trainer(stage, precision)
    plain.step(1)
    for key, value in moments.items():
        assert torch.allclose(2 * value, plain.state()[key], rtol=1e-6), key


def check_resume(stage, precision):
    """A state that was saved and restored trains on bit for bit, working weights and all."""
    whole = Trainer(stage, precision)
    for step in range(3):
        whole.step(step)
    saved = whole.whole()
    resumed = Trainer(stage, precision, weights={name: saved["master", name] for name in TRAINED})
    for one in resumed.partition.restorable():
        stored = saved[one.section, one.name].reshape(-1)
        one.values.copy_(stored[one.offset : one.offset + one.values.numel()])
    resumed.partition.set_updates(whole.partition.updates)
    assert equal(whole.state(), resumed.state())
    for step in range(3, 6):
        assert whole.step(step) == resumed.step(step), step
        assert equal(whole.state(), resumed.state()), step
        assert whole.loss(step) == resumed.loss(step), step


CHECKS = {name: function for name, function in list(globals().items()) if name.startswith("check_")}


def fresh():
    """Undo what an earlier engine of this process left in DeepSpeed: stx's workers make one engine each."""
    autocast = sys.modules.get("deepspeed.runtime.torch_autocast")
    if autocast is not None:
        autocast.TORCH_AUTOCAST_INITIALIZED, autocast.TORCH_AUTOCAST_DTYPE = False, None


def main():
    rank, world, file, wanted = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
    failed = False
    for name, stage, precision in wanted:
        fresh()
        try:
            CHECKS[name](stage, precision)
        except Exception:  # noqa: BLE001 (all checks run; every failure is told)
            traceback.print_exc()
            print("FAILED", name, stage, precision, flush=True)
            failed = True
    dist.destroy_process_group()
    sys.exit(failed)


if __name__ == "__main__":
    main()
