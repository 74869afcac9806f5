"""All contact with DeepSpeed's internals: making the engine, its owned flat partition by parameter name, EMA, clearing
a bad gradient.

At ZeRO 1 the engine flattens all parameters, in order, into one buffer; rank r owns elements [r*size, (r+1)*size) of
it: an fp32 master, and Adam's moments, all flat. `Partition` maps that range to (name, offset) slices, adds the EMA as
a fourth flat tensor, and reads and sets all of them. tests/worker/test_zero_state.py pins what is used here;
`_check_layout` compares masters and weights at every start, so that another DeepSpeed that lays them out differently
is refused instead of trained on.

fp32 weights must be in the module BEFORE `make_engine`: setting masters later leaves the working weights stale.
"""

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from stx.errors import StxError
from stx.model import ema
from stx.worker.checkpoint import Slice

if TYPE_CHECKING:
    from types import ModuleType

    from deepspeed import DeepSpeedEngine

MASTER, MOMENTS, EMA = "master", ("exp_avg", "exp_avg_sq"), "ema"
SECTIONS = (MASTER, *MOMENTS, EMA)
# Larger models are reduced and gathered in pieces of this many elements.
BUCKET = 50_000_000


@dataclass(frozen=True)
class Span:
    """Elements [offset, offset + count) of parameter `name` lie at [start, start + count) of the owned partition."""

    name: str
    offset: int
    start: int
    count: int


def make_engine(
    module: nn.Module,
    *,
    micro_batch: int,
    accumulation: int,
    world_size: int,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
) -> "DeepSpeedEngine":
    """A DeepSpeed engine at ZeRO 1 in fp32. It neither clips nor judges gradients: the loop does, before its step."""
    deepspeed = _import_deepspeed()
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    bucket = min(BUCKET, sum(parameter.numel() for parameter in parameters) + 64)
    config = {
        "train_batch_size": micro_batch * accumulation * world_size,
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": 0.0,
        "zero_optimization": {
            "stage": 1,
            "overlap_comm": False,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket + bucket % 2,
            # Its norm would cost a second all-reduce and a second wait of the host in every step.
            "compute_grad_norm": False,
        },
        "steps_per_print": None,
    }
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=betas, weight_decay=weight_decay, fused=True)
    engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config, dist_init_required=False)
    return engine


class Partition:
    """The flat fp32 state that this rank owns at ZeRO 1."""

    def __init__(self, engine: "DeepSpeedEngine", *, rank: int) -> None:
        self._engine = engine
        self._zero = engine.optimizer
        self.master: Tensor = self._zero.single_partition_of_fp32_groups[0]
        self.spans = _spans(engine, rank=rank)
        self.shapes = {
            name: list(parameter.shape)
            for name, parameter in engine.module.named_parameters()
            if parameter.requires_grad
        }
        self._check_layout(rank)
        self._adam = self._zero.optimizer.state[self.master]
        # AdamW makes its state at the first step; made here, it can be saved and filled before.
        self._adam["step"] = torch.tensor(0.0, device=self.master.device)
        self._flat = {MASTER: self.master.detach(), EMA: self.master.detach().clone()}
        for name in MOMENTS:
            self._flat[name] = self._adam[name] = torch.zeros_like(self.master, requires_grad=False)

    @property
    def updates(self) -> int:
        """Adam's step."""
        return int(self._adam["step"])

    def slices(self, sections: tuple[str, ...] = SECTIONS) -> list[Slice]:
        """The owned state, as views: what a checkpoint writes, and what it fills."""
        return [
            Slice(section, span.name, span.offset, self._flat[section].narrow(0, span.start, span.count))
            for section in sections
            for span in self.spans
        ]

    def set_updates(self, updates: int) -> None:
        """Set Adam's step."""
        self._adam["step"].fill_(float(updates))

    def gradients(self) -> list[Tensor]:
        """The averaged gradients of the owned elements, between the last backward of a step and the engine's step."""
        return [gradient for gradient in self._zero.averaged_gradients[0] if gradient is not None]

    def square_norm(self) -> Tensor:
        """Sum of squares of the owned gradients, without waiting for it. Not finite if any of them is not."""
        norms = torch._foreach_norm(self.gradients())
        return torch.stack(norms).square().sum()

    def scale_gradients(self, factor: float) -> None:
        """Multiply the owned gradients."""
        torch._foreach_mul_(self.gradients(), factor)

    def discard_gradients(self) -> None:
        """Forget this step's gradients, as if its batch had never been offered; in place of the engine's step."""
        self._zero.zero_grad(set_to_none=True)
        self._zero.averaged_gradients[0] = None
        self._zero.all_grad_tensors[0] = None
        self._engine.micro_steps += 1  # the accumulation boundary is counted from it

    def update_ema(self, *, decay: float) -> None:
        """Move the EMA of the owned elements towards their masters."""
        ema.update([self._flat[EMA]], [self._flat[MASTER]], decay=decay)

    def _check_layout(self, rank: int) -> None:
        weights = dict(self._engine.module.named_parameters())
        size = self.master.numel()
        fits = sum(span.count for span in self.spans) + self._zero.groups_padding[0] == size
        for span in self.spans:
            theirs = weights[span.name].detach().reshape(-1)[span.offset : span.offset + span.count]
            fits = fits and torch.equal(self.master.detach()[span.start : span.start + span.count], theirs)
        if not fits or self.master.dtype != torch.float32 or len(self._zero.single_partition_of_fp32_groups) != 1:
            raise StxError(
                f"this DeepSpeed lays out the ZeRO-1 partition of rank {rank} in a way that stx does not know",
                hint="install the DeepSpeed of constraints.txt",
            )


def _spans(engine: "DeepSpeedEngine", *, rank: int) -> list[Span]:
    """What rank `rank` owns: the intersection of its range of the flat buffer with every parameter's range."""
    zero = engine.optimizer
    names = {id(parameter): name for name, parameter in engine.module.named_parameters()}
    size = zero.partition_size[0]
    low, high = rank * size, (rank + 1) * size
    spans = []
    for parameter, begin in zip(zero.round_robin_bit16_groups[0], zero.round_robin_bit16_offsets[0], strict=True):
        first, last = max(begin, low), min(begin + parameter.numel(), high)
        if first < last:
            spans.append(Span(names[id(parameter)], offset=first - begin, start=first - low, count=last - first))
    return spans


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
