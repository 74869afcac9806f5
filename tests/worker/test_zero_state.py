"""What stx relies on in DeepSpeed, on one rank; two ranks are in test_train.py."""

import copy
import math

import pytest
import torch
import torch.distributed as dist
from torch import nn

from stx.errors import StxError
from stx.model import ema
from stx.worker import zero_state
from stx.worker.checkpoint import Slice
from stx.worker.zero_state import Partition

LR, BETAS, DECAY = 1e-2, (0.9, 0.99), 0.9


@pytest.fixture(scope="module", autouse=True)
def process_group():
    """One for the whole test process: DeepSpeed cannot change its group. One thread, as the launched ranks have."""
    torch.set_num_threads(1)
    if not dist.is_initialized():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 5), nn.SiLU(), nn.Linear(5, 2))
    net.register_parameter("unused", nn.Parameter(torch.ones(3)))
    net.register_parameter("frozen", nn.Parameter(torch.ones(2), requires_grad=False))
    return net


class Trainer:
    """Two micro-batches a step, as the loop does it."""

    def __init__(self, net):
        self.net = net
        options = {"world_size": 1, "lr": LR, "betas": BETAS, "weight_decay": 0.0}
        self.engine = zero_state.make_engine(net, micro_batch=4, accumulation=2, **options)
        self.partition = Partition(self.engine, rank=0)

    def offer(self, step, *, factor=1.0):
        x = torch.sin(torch.arange(24.0).reshape(8, 3) + step)
        for number, half in enumerate(x.chunk(2)):
            self.engine.backward(factor * self.engine(half).square().sum() / 8, scale_wrt_gas=False)
            if number == 0:
                self.engine.step()
        return float(self.partition.square_norm().sqrt())

    def step(self, step):
        norm = self.offer(step)
        self.engine.step()
        self.partition.update_ema(decay=DECAY)
        return norm

    def state(self):
        return {(one.section, one.name): one.values.clone() for one in self.partition.slices()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def test_it_trains_as_plain_adamw_does_and_the_ema_follows():
    trainer, plain = Trainer(network()), network()
    average = [parameter.detach().clone() for parameter in plain.parameters()]
    adam = torch.optim.AdamW(plain.parameters(), lr=LR, betas=BETAS, weight_decay=0.0)
    for step in range(4):
        x = torch.sin(torch.arange(24.0).reshape(8, 3) + step)
        adam.zero_grad()
        (plain(x).square().sum() / 8).backward()
        norm = torch.stack([p.grad.square().sum() for p in plain.parameters() if p.grad is not None]).sum().sqrt()
        assert trainer.step(step) == pytest.approx(float(norm), rel=1e-5)
        adam.step()
        ema.update(average, [parameter.detach() for parameter in plain.parameters()], decay=DECAY)
    state = trainer.state()
    for (name, parameter), mean in zip(plain.named_parameters(), average, strict=True):
        assert torch.allclose(dict(trainer.net.named_parameters())[name], parameter, atol=1e-6)
        if name != "frozen":
            assert torch.allclose(state["master", name], parameter.reshape(-1), atol=1e-6)
            assert torch.allclose(state["ema", name], mean.reshape(-1), atol=1e-6)
    assert trainer.partition.updates == 4


def test_slices_cover_every_trained_parameter_in_every_section():
    partition = Trainer(network()).partition
    names = ["unused", "0.weight", "0.bias", "2.weight", "2.bias"]
    assert sorted(partition.shapes) == sorted(names)
    covered = {(one.section, one.name): one.values.numel() for one in partition.slices()}
    assert covered == {(s, n): math.prod(partition.shapes[n]) for s in zero_state.SECTIONS for n in names}


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_after_a_discarded_batch_the_next_step_equals_one_that_was_never_offered_it(factor):
    offered, never = Trainer(network()), Trainer(network())
    offered.step(0)
    never.step(0)
    before = offered.state()
    assert not math.isfinite(offered.offer(1, factor=factor))
    offered.partition.discard_gradients()
    assert equal(offered.state(), before)
    for step in (2, 3):
        assert offered.step(step) == never.step(step)
        assert equal(offered.state(), never.state())
    assert offered.partition.updates == never.partition.updates == 3


def test_scaled_gradients_are_what_the_step_takes():
    scaled, small = Trainer(network()), Trainer(network())
    scaled.offer(0, factor=2.0)
    scaled.partition.scale_gradients(0.5)
    small.offer(0)
    for trainer in (scaled, small):
        trainer.engine.step()
    assert equal(scaled.state(), small.state())


def test_a_restored_state_trains_on_bit_for_bit():
    whole = Trainer(network())
    for step in range(2):
        whole.step(step)
    saved, updates = whole.state(), whole.partition.updates
    net = network()
    weights = {name: saved["master", name].reshape(p.shape) for name, p in net.named_parameters() if p.requires_grad}
    net.load_state_dict({**net.state_dict(), **weights})
    resumed = Trainer(net)
    for one in resumed.partition.slices():
        one.values.copy_(saved[one.section, one.name])
    resumed.partition.set_updates(updates)
    for step in range(2, 5):
        assert whole.step(step) == resumed.step(step)
        assert equal(whole.state(), resumed.state())


def test_an_unknown_layout_is_refused():
    trainer = Trainer(network())
    offsets = copy.copy(trainer.engine.optimizer.round_robin_bit16_offsets[0])
    trainer.engine.optimizer.round_robin_bit16_offsets[0] = [offset + 1 for offset in offsets]
    with pytest.raises(StxError, match="lays out the ZeRO-1 partition"):
        Partition(trainer.engine, rank=0)


def test_slices_are_views_of_what_is_trained():
    trainer = Trainer(network())
    one = trainer.partition.slices(("ema",))[0]
    assert isinstance(one, Slice)
    one.values.fill_(7.0)
    assert torch.equal(trainer.state()[one.section, one.name], torch.full_like(one.values, 7.0))
