"""checks.py in this process, which is one rank, and on two."""

import importlib.util
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from stx.errors import ConfigError, StxError
from stx.worker.zero import layouts
from stx.worker.zero.partition import Partition

PROGRAM = Path(__file__).with_name("checks.py")
STAGES, PRECISIONS = (0, 1, 2, 3), ("fp32", "bf16_autocast", "bf16_weights")
REFUSED = (0, "bf16_weights")
COMBINATIONS = [pair for pair in itertools.product(STAGES, PRECISIONS) if pair != REFUSED]
NAMES = ("check_slices", "check_adamw", "check_discard", "check_scaled", "check_resume")
# Making the engine of ZeRO 3, or of ZeRO 1 with bf16 weights, takes longest: CI runs few of those.
SAMPLE = [
    *((name, stage, "fp32") for stage in (0, 1, 2) for name in NAMES),
    *((name, 2, "bf16_weights") for name in NAMES),
    *((name, 0, "bf16_autocast") for name in NAMES),
    ("check_discard", 3, "fp32"),
    ("check_adamw", 3, "bf16_weights"),
]
ON_TWO = [
    *((name, stage, "fp32") for stage in STAGES for name in ("check_adamw", "check_discard")),
    *(("check_resume", stage, "bf16_weights") for stage in (1, 2)),
    ("check_discard", 0, "bf16_autocast"),
]
ALL = [(name, *pair) for pair in COMBINATIONS for name in NAMES]


@pytest.fixture(scope="module", autouse=True)
def process_group():
    """One for the whole test process: DeepSpeed cannot change its group. One thread, as the launched ranks have."""
    torch.set_num_threads(1)
    if not dist.is_initialized():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)


@pytest.fixture
def checks():
    """The program as a module, in a DeepSpeed that has made no engine yet."""
    spec = importlib.util.spec_from_file_location("zero_checks", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.fresh()
    return module


def marked(chosen, every):
    """All of them: those that are not chosen are for the full run."""
    return [pytest.param(*one, marks=[] if one in chosen else [pytest.mark.full]) for one in every]


@pytest.mark.parametrize(("name", "stage", "precision"), marked(SAMPLE, ALL))
def test_one_rank(checks, name, stage, precision):
    checks.CHECKS[name](stage, precision)


@pytest.mark.slow
@pytest.mark.parametrize(
    "wanted", [pytest.param(ON_TWO), pytest.param(ALL, marks=pytest.mark.full)], ids=["some", "all"]
)
def test_two_ranks(tmp_path, wanted):
    command = [sys.executable, "-W", "ignore", PROGRAM]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), "2", tmp_path / "meet", json.dumps(wanted)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    told = [process.communicate(timeout=240)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], "\n".join(told)


def test_bf16_autocast_at_zero_0_takes_no_hidden_step(checks):
    trainer = checks.Trainer(0, "bf16_autocast")
    assert trainer.partition.updates == 0
    assert type(trainer.engine.optimizer) is torch.optim.AdamW
    sharded = checks.Trainer(1, "bf16_autocast")
    for step in range(4):
        assert trainer.step(step) == pytest.approx(sharded.step(step), rel=1e-6)


def test_bf16_weights_at_zero_0_would_take_one(checks):
    """What the refusal is for: DeepSpeed's own optimizer has stepped before the first batch."""
    import deepspeed

    net = checks.Network()
    optimizer = torch.optim.AdamW([one for one in net.parameters() if one.requires_grad], lr=0.1, weight_decay=0.5)
    config = {"train_batch_size": 1, "bf16": {"enabled": True}, "steps_per_print": None}
    engine, *_ = deepspeed.initialize(model=net, optimizer=optimizer, config=config, dist_init_required=False)
    assert {int(state["step"]) for state in optimizer.state.values()} == {1}
    masters = [master for group in engine.optimizer.fp32_groups for master in group]
    working = [one.float() for one in engine.module.parameters() if one.requires_grad]
    assert not any(torch.equal(*pair) for pair in zip(masters, working, strict=True)), "weight decay has acted"
    with pytest.raises(ConfigError, match="bf16_weights do not go with ZeRO 0"):
        checks.Trainer(*REFUSED)


def test_an_unknown_layout_is_refused(checks):
    trainer = checks.Trainer(1, "fp32")
    zero = trainer.engine.optimizer
    zero.round_robin_bit16_offsets[0] = [offset + 1 for offset in zero.round_robin_bit16_offsets[0]]
    moved = layouts.Sharded(trainer.engine, rank=0)
    with pytest.raises(StxError, match="lays out its state in a way that stx does not know"):
        Partition(moved, shapes=trainer.partition.shapes, emas={}, exact=None)
    zero.round_robin_bit16_offsets.append([])
    with pytest.raises(StxError, match="in a way that stx does not know"):
        layouts.Sharded(trainer.engine, rank=0)
