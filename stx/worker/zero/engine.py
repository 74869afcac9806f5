"""Making DeepSpeed's engine: one configuration for each ZeRO stage and precision.

    fp32            all in fp32
    bf16_autocast   fp32 weights and gradients; DeepSpeed wraps the module's forward pass in torch.autocast
    bf16_weights    working weights and activations in bf16, masters in fp32

In all of them gradients are summed over micro-batches and ranks in fp32 (DeepSpeed's default under bf16 is bf16, which
would make the result depend on how many ranks there are), and Adam and the EMAs are fp32. The engine neither clips nor
judges gradients: the loop does, before its step.

ZeRO 0 with bf16_weights is refused: DeepSpeed's optimizer for it takes a step on zero gradients while it is made. With
bf16_autocast it is plain AdamW and takes none (tests/worker/zero/test_engine.py).
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from stx.errors import ConfigError
from stx.worker.ranks import Ranks
from stx.worker.zero import layouts
from stx.worker.zero.layouts import Layout
from stx.worker.zero.partition import Partition

if TYPE_CHECKING:
    from types import ModuleType

    from deepspeed import DeepSpeedEngine

FP32, BF16_AUTOCAST, BF16_WEIGHTS = "fp32", "bf16_autocast", "bf16_weights"
# Larger models are reduced and gathered in pieces of this many elements.
BUCKET = 50_000_000
# ZeRO 3 updates its parameters in groups of so many elements; one group makes one flat master.
ONE_GROUP = 10**15


@dataclass(frozen=True)
class EngineOptions:
    """What the engine depends on besides the module. `emas`: section name by decay."""

    zero_stage: int
    precision: str
    micro_batch: int
    accumulation: int
    lr: float
    betas: tuple[float, float]
    weight_decay: float
    emas: Mapping[float, str]


def make(module: nn.Module, options: EngineOptions, *, ranks: Ranks) -> tuple["DeepSpeedEngine", Partition]:
    """The engine around a module that has its fp32 weights, and this rank's part of the state."""
    if options.zero_stage == 0 and options.precision == BF16_WEIGHTS:
        raise ConfigError("bf16_weights do not go with ZeRO 0", hint="zero_stage 1, 2 or 3; or bf16_autocast")
    named = {name: one for name, one in module.named_parameters() if one.requires_grad}
    shapes = {name: list(one.shape) for name, one in named.items()}
    rounded = options.precision == BF16_WEIGHTS
    exact = {name: one.detach().clone() for name, one in named.items()} if rounded else None
    deepspeed = _import_deepspeed()
    settings = {"lr": options.lr, "betas": options.betas, "weight_decay": options.weight_decay}
    optimizer = torch.optim.AdamW(list(named.values()), **settings, fused=True)
    config = _config(options, elements=sum(one.numel() for one in named.values()), world_size=ranks.size)
    engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config, dist_init_required=False)
    layout = _layout(engine, options, ranks=ranks)
    return engine, Partition(layout, shapes=shapes, emas=options.emas, exact=exact)


def _layout(engine: "DeepSpeedEngine", options: EngineOptions, *, ranks: Ranks) -> Layout:
    if options.zero_stage == 0:
        return layouts.Replicated(engine, rank=ranks.rank, size=ranks.size)
    if options.zero_stage == 1 and options.precision == BF16_WEIGHTS:
        return layouts.Accumulated(engine, rank=ranks.rank)
    if options.zero_stage == 3:
        return layouts.PerParameter(engine, rank=ranks.rank)
    return layouts.Sharded(engine, rank=ranks.rank)


def _config(options: EngineOptions, *, elements: int, world_size: int) -> dict[str, Any]:
    bucket = min(BUCKET, elements + 64)
    zero: dict[str, Any] = {
        "stage": options.zero_stage,
        "overlap_comm": False,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket + bucket % 2,
        "sub_group_size": ONE_GROUP,
        # It would replace torch's own linear in the whole process.
        "memory_efficient_linear": False,
    }
    if options.zero_stage == 2 or (options.zero_stage == 1 and options.precision != BF16_WEIGHTS):
        # Its norm would cost a second all-reduce and wait of the host in every step; elsewhere it has no switch.
        zero["compute_grad_norm"] = False
    return {
        "train_batch_size": options.micro_batch * options.accumulation * world_size,
        "train_micro_batch_size_per_gpu": options.micro_batch,
        "gradient_accumulation_steps": options.accumulation,
        "gradient_clipping": 0.0,
        "zero_optimization": zero,
        "steps_per_print": None,
        **_precision(options.precision),
    }


def _precision(precision: str) -> dict[str, Any]:
    if precision == BF16_AUTOCAST:
        # No module is "safe": that would send its gradients, and at ZeRO 3 its weights, in bf16.
        return {"torch_autocast": {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}}
    if precision == BF16_WEIGHTS:
        return {
            "bf16": {"enabled": True, "immediate_grad_update": True, "check_grad_overflow": False},
            "data_types": {"grad_accum_dtype": "fp32"},
            "communication_data_type": "fp32",
        }
    return {}


def _import_deepspeed() -> "ModuleType":
    """DeepSpeed, quiet, and without the shared-memory op that it would compile for inference on the CPU.

    Training never calls the op; building it takes 20 s and a C++ compiler, and a kill during the build leaves a lock
    file on which every later start waits.
    """
    os.environ["DS_ACCELERATOR"] = "cuda" if torch.cuda.is_available() else "cpu"
    # DeepSpeed takes the device's number from here; a rank sees exactly its own GPU, so that is 0.
    os.environ["LOCAL_RANK"] = "0"
    # DeepSpeed decorates an optimizer of its own with torch.compile, and that imports the whole compiler: 1 s, 100 MB.
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    import deepspeed  # (after the variables that it reads when imported)

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_init_required=False)
    return deepspeed
