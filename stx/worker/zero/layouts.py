"""Where DeepSpeed keeps the fp32 weights, Adam's moments and the gradients of a rank: one class for each way it does.

    class            used at                                the fp32 weights of rank r of W
    Replicated       ZeRO 0                                 all of them, on every rank
    Sharded          ZeRO 1 and 2 (ZeRO 1 with fp32         all parameters in a row: elements [r*size, (r+1)*size)
                     weights only)
    Accumulated      ZeRO 1 with bf16 weights, which        the same; gradients are summed in fp32, whole, beside
                     DeepSpeed gives another optimizer      the bf16 ones
    PerParameter     ZeRO 3                                 the r-th part of every parameter, one part after another

In all of them `master` is one flat fp32 tensor, and `spans` say which elements of which parameter lie where in it;
padding belongs to no span. tests/worker/zero pins what is used of DeepSpeed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch
from torch import Tensor, nn

from stx.errors import StxError

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


@dataclass(frozen=True)
class Span:
    """Elements [offset, offset + count) of parameter `name` lie at [start, start + count) of `master`."""

    name: str
    offset: int
    start: int
    count: int


class Layout(Protocol):
    """The flat state of one rank. `written` are the spans that this rank, and no other, writes to a checkpoint."""

    master: Tensor
    spans: Sequence[Span]
    written: Sequence[Span]
    copies: int  # how many ranks hold these same elements

    def working(self, span: Span) -> Tensor:
        """The elements of a span as the network uses them."""
        ...

    def install(self, moments: Mapping[str, Tensor]) -> list[Tensor]:
        """Make tensors like `master` Adam's moments; its step counters, all zero."""
        ...

    def gradients(self) -> list[Tensor]:
        """The averaged gradients of the held elements, after a step's last backward pass; zero in the padding."""
        ...

    def step(self) -> None:
        """Adam's step with these gradients, which are gone afterwards."""
        ...

    def discard(self) -> None:
        """In place of `step`: as if the batch had never been offered."""
        ...


class Replicated:
    """ZeRO 0. The parameters are made views of one flat tensor, so that the rest of stx sees what it sees elsewhere."""

    def __init__(self, engine: "DeepSpeedEngine", *, rank: int, size: int) -> None:
        self._engine = engine
        named = {name: one for name, one in engine.module.named_parameters() if one.requires_grad}
        self._parameters = list(named.values())
        self.master = torch.cat([one.detach().reshape(-1) for one in self._parameters])
        begins = _begins(self._parameters)
        for one, begin in zip(self._parameters, begins, strict=True):
            one.data = self.master.narrow(0, begin, one.numel()).view(one.shape)
        placed = list(zip(named, begins, map(nn.Parameter.numel, self._parameters), strict=True))
        total = self.master.numel()
        self.spans = _cut(placed, low=0, high=total)
        share = -(-total // size)
        written = _cut(placed, low=rank * share, high=min((rank + 1) * share, total))
        self.written = [Span(one.name, one.offset, one.start + rank * share, one.count) for one in written]
        self.copies = size

    def working(self, span: Span) -> Tensor:
        """The parameters are the masters."""
        return _flat(self._engine.module.get_parameter(span.name), span)

    def install(self, moments: Mapping[str, Tensor]) -> list[Tensor]:
        """Views of the flat moments, and a counter, for every parameter."""
        steps = []
        for one, begin in zip(self._parameters, _begins(self._parameters), strict=True):
            views = {name: flat.narrow(0, begin, one.numel()).view(one.shape) for name, flat in moments.items()}
            steps.append(_seed_adam(self._engine.optimizer, one, views))
        return steps

    def gradients(self) -> list[Tensor]:
        """Of every parameter: the all-reduce gives zeros to those that had none."""
        return [one.grad for one in self._parameters]

    def step(self) -> None:
        """The engine clears the gradients itself."""
        self._engine.step()

    def discard(self) -> None:
        """Without a ZeRO optimizer nobody else would: one NaN would reach every weight."""
        self._engine.zero_grad()
        self._engine.micro_steps += 1  # the accumulation boundary is counted from it


class Sharded:
    """ZeRO 1 and 2."""

    copies = 1

    def __init__(self, engine: "DeepSpeedEngine", *, rank: int) -> None:
        self._engine = engine
        self._zero = engine.optimizer
        self.master = only(self._zero.single_partition_of_fp32_groups)
        parameters = only(self._zero.round_robin_bit16_groups)
        begins = only(self._zero.round_robin_bit16_offsets)
        self.spans = self.written = _owned(engine, parameters, begins, rank=rank, size=self.master.numel())

    def working(self, span: Span) -> Tensor:
        """Every rank has all working weights."""
        return _flat(self._engine.module.get_parameter(span.name), span)

    def install(self, moments: Mapping[str, Tensor]) -> list[Tensor]:
        """For the one flat tensor that Adam sees."""
        return [_seed_adam(self._zero.optimizer, self.master, moments)]

    def gradients(self) -> list[Tensor]:
        """One tensor for each parameter in the partition."""
        return list(self._zero.averaged_gradients[0])

    def step(self) -> None:
        """The optimizer clears the gradients itself."""
        self._engine.step()

    def discard(self) -> None:
        """Its own judgement of gradients is switched off: that would be another all-reduce and wait in every step."""
        self._zero.zero_grad(set_to_none=True)
        self._zero.averaged_gradients[0] = None
        self._zero.all_grad_tensors[0] = None
        self._engine.micro_steps += 1


class Accumulated:
    """ZeRO 1 with bf16 weights and gradients that are summed in fp32: DeepSpeed's BF16_Optimizer."""

    copies = 1

    def __init__(self, engine: "DeepSpeedEngine", *, rank: int) -> None:
        self._engine = engine
        self._zero = engine.optimizer
        self.master, parameters = only(self._zero.fp32_groups_flat_partition), only(self._zero.bf16_groups)
        self.spans = self.written = _owned(engine, parameters, _begins(parameters), rank=rank, size=self.master.numel())

    def working(self, span: Span) -> Tensor:
        """Every rank has all working weights."""
        return _flat(self._engine.module.get_parameter(span.name), span)

    def install(self, moments: Mapping[str, Tensor]) -> list[Tensor]:
        """For the one flat tensor that Adam sees."""
        return [_seed_adam(self._zero.optimizer, self.master, moments)]

    def gradients(self) -> list[Tensor]:
        """This rank's part of the fp32 sums, which every rank has whole."""
        return list(self._zero.fp32_groups_gradient_flat_partition)

    def step(self) -> None:
        """The optimizer clears the gradients itself."""
        self._engine.step()

    def discard(self) -> None:
        """Both the bf16 gradients and their fp32 sums."""
        self._zero.zero_grad()
        self._engine.micro_steps += 1


class PerParameter:
    """ZeRO 3."""

    copies = 1

    def __init__(self, engine: "DeepSpeedEngine", *, rank: int) -> None:
        self._engine = engine
        self._zero = engine.optimizer
        self.master, parameters = only(self._zero.fp32_partitioned_groups_flat), only(self._zero.fp16_groups)
        names = {id(parameter): name for name, parameter in engine.module.named_parameters()}
        self._parts, self.spans, start = {}, [], 0
        for parameter in parameters:
            size = parameter.partition_numel()
            offset = rank * size
            count = min(size, parameter.ds_numel - offset)
            if count > 0:  # the last ranks have no part of a parameter that is smaller than W
                self.spans.append(Span(names[id(parameter)], offset=offset, start=start, count=count))
                self._parts[names[id(parameter)]] = parameter.ds_tensor
            start += size
        self.written = self.spans

    def working(self, span: Span) -> Tensor:
        """This rank's part of the parameter."""
        return self._parts[span.name].detach().reshape(-1)[: span.count]

    def install(self, moments: Mapping[str, Tensor]) -> list[Tensor]:
        """For the one flat tensor that Adam sees."""
        return [_seed_adam(self._zero.optimizer, self.master, moments)]

    def gradients(self) -> list[Tensor]:
        """One flat tensor, laid out as `master`."""
        return [self._zero.grad_partitions_flat_buffer]

    def step(self) -> None:
        """DeepSpeed keeps the gradients, and applies them again to parameters that get none in the next step.

        An alignment's projector has none in a step without rows inside the window: losses were 1% off after 20 steps.
        """
        self._engine.step()
        self._zero.grad_partitions_flat_buffer.zero_()

    def discard(self) -> None:
        """Its own way out: a step with a gradient that is not finite clears its hooks' state and changes nothing."""
        self._zero.grad_partitions_flat_buffer.fill_(torch.nan)
        self.step()


Group = TypeVar("Group")


def only(groups: Sequence[Group]) -> Group:
    """The one group of parameters that stx makes."""
    if len(groups) != 1:
        raise unknown()
    return groups[0]


def unknown() -> StxError:
    """This DeepSpeed keeps its state in another way: refused, instead of trained on."""
    return StxError(
        "this DeepSpeed lays out its state in a way that stx does not know",
        hint="install the DeepSpeed of constraints.txt",
    )


def _owned(
    engine: "DeepSpeedEngine", parameters: Sequence[Tensor], begins: Sequence[int], *, rank: int, size: int
) -> list[Span]:
    """What rank `rank` owns of parameters in a row, cut into parts of `size`."""
    names = {id(parameter): name for name, parameter in engine.module.named_parameters()}
    placed = [(names[id(one)], begin, one.numel()) for one, begin in zip(parameters, begins, strict=True)]
    return _cut(placed, low=rank * size, high=(rank + 1) * size)


def _cut(placed: Iterable[tuple[str, int, int]], *, low: int, high: int) -> list[Span]:
    """The intersection of [low, high) with parameters (name, begin, count); starts count from `low`."""
    spans = []
    for name, begin, count in placed:
        first, last = max(begin, low), min(begin + count, high)
        if first < last:
            spans.append(Span(name, offset=first - begin, start=first - low, count=last - first))
    return spans


def _begins(parameters: Sequence[Tensor]) -> list[int]:
    """Where each of them begins when they lie in a row."""
    begins, total = [], 0
    for parameter in parameters:
        begins.append(total)
        total += parameter.numel()
    return begins


def _flat(parameter: Tensor, span: Span) -> Tensor:
    return parameter.detach().reshape(-1)[span.offset : span.offset + span.count]


def _seed_adam(optimizer: torch.optim.AdamW, parameter: Tensor, moments: Mapping[str, Tensor]) -> Tensor:
    """AdamW makes its state at the first step; made here, it can be saved and filled before. Returns its counter."""
    step = torch.tensor(0.0, device=parameter.device)
    optimizer.state[parameter] = {"step": step, **moments}
    return step
