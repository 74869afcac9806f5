"""Training of the small networks around the diffusion model (autoencoder, classifier): one rank, fp32, AdamW, no EMA.

The step is a function of (weights, step): `loss(step)` makes its own batch from images n = step*batch .. step*batch +
batch - 1, with randomness from stx/data/noise.py. So a resumed fit continues bit for bit, and checkpoints hold no
random state. Same checkpoint format as the train stage.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jobs import runtime
from stx.worker import pace
from stx.worker.attempt import Attempt, NonFinite, Yielded
from stx.worker.checkpoint import Checkpoint, Identity, Keeper, Slice
from stx.worker.ranks import ALONE
from stx.worker.telemetry import Meter

logger = logging.getLogger(__name__)
MAX_SKIPPED_IN_A_ROW = 5
MOMENTS = ("exp_avg", "exp_avg_sq")
Loss = Callable[[int], Mapping[str, Tensor]]


@dataclass
class _Fit:
    """Where a fit stands. `updates` counts optimizer steps; `skipped` the last steps in a row without one."""

    module: nn.Module
    optimizer: torch.optim.AdamW
    step: int = 0
    updates: int = 0
    skipped: int = 0
    seconds: float = 0.0


def fit(
    attempt: Attempt,
    *,
    module: nn.Module,
    loss: Loss,
    steps: int,
    batch: int,
    lr: float,
    grad_clip: float,
    log_every: int,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.0,
) -> None:
    """Train `module` in place to `steps`, from the newest checkpoint if any; Yielded after a save when asked."""
    assert attempt.world_size == 1, f"{attempt.kind} stages run on one rank"
    attempt.heart.beat("start", images=0, total=steps * batch)
    optimizer = torch.optim.AdamW(module.parameters(), lr=lr, betas=betas, weight_decay=weight_decay, fused=True)
    state = _Fit(module=module, optimizer=optimizer)
    _seed_moments(state)
    keeper = keeper_of(attempt)
    restored = keeper.restore(accept_code=attempt.accept_code)
    if restored is not None:
        _load(state, restored)
        logger.info("resumed step=%d from %s", state.step, restored.path)
    module.train()
    meter = Meter(attempt=attempt, ranks=ALONE, log_every=log_every, total=steps * batch)
    _loop(attempt, state=state, keeper=keeper, meter=meter, loss=loss, steps=steps, batch=batch, grad_clip=grad_clip)
    attempt.notes["fit_seconds"] = state.seconds


def keeper_of(attempt: Attempt) -> Keeper:
    """The checkpoints of a one-rank stage."""
    identity = Identity(attempt.key, attempt.spec.recipe, attempt.science_digest)
    return Keeper(
        attempt.stage.checkpoints, attempt.number, identity, ALONE, attempt.checkpoint_keep, attempt.heart.again
    )


def _loop(
    attempt: Attempt, *, state: _Fit, keeper: Keeper, meter: Meter, loss: Loss, steps: int, batch: int, grad_clip: float
) -> None:
    saved_at, saved_step = time.monotonic(), state.step
    while state.step < steps:
        began = time.monotonic()
        meter.begin_step(images=state.step * batch)
        norm = _step(state, terms=loss(state.step), meter=meter, grad_clip=grad_clip)
        meter.end_step(step=state.step, images=state.step * batch, grad_norm=norm)
        state.seconds += time.monotonic() - began
        stop = runtime.stop_requested()
        due = time.monotonic() - saved_at >= pace.interval(attempt, save_seconds=keeper.save_seconds)
        if (stop or due or state.step == steps) and state.step > saved_step:
            expected, first = keeper.expected_seconds(_slices(state)), not keeper.save_seconds
            if not pace.fits(attempt, expected_seconds=expected, stop=stop, first=first):
                attempt.notes.update({"saved": False, "recomputed_images": (state.step - saved_step) * batch})
                raise Yielded
            attempt.heart.beat("save", images=state.step * batch, total=steps * batch)
            keeper.save(
                images=state.step * batch, slices=_slices(state), shapes=_shapes(state), progress=_progress(state)
            )
            meter.paused(keeper.save_seconds)
            saved_at, saved_step = time.monotonic(), state.step
            attempt.heart.beat("step", images=state.step * batch, total=steps * batch, **meter.latest())
        if stop and state.step < steps:
            attempt.notes.update({"saved": True, "images": state.step * batch})
            raise Yielded


def _step(state: _Fit, *, terms: Mapping[str, Tensor], meter: Meter, grad_clip: float) -> float:
    """One step; a step whose gradients are not finite is passed over, and too many in a row end the stage."""
    total = torch.stack(list(terms.values())).sum()
    state.optimizer.zero_grad(set_to_none=True)
    total.backward()
    norm = float(nn.utils.clip_grad_norm_(state.module.parameters(), grad_clip))
    meter.add({"loss": total, **terms})
    if math.isfinite(norm):
        state.optimizer.step()
        state.updates, state.skipped = state.updates + 1, 0
    else:
        state.skipped += 1
        logger.warning("skipped step=%d grad_norm=%s in_a_row=%d", state.step, norm, state.skipped)
        if state.skipped >= MAX_SKIPPED_IN_A_ROW:
            raise NonFinite(
                f"the gradients of {state.skipped} steps in a row, up to step {state.step}, were not finite",
                hint="lower lr",
            )
    state.step += 1
    return norm


def _seed_moments(state: _Fit) -> None:
    """AdamW makes its moments at the first step; a checkpoint may come before it."""
    for parameter in state.module.parameters():
        zeros = {section: torch.zeros_like(parameter) for section in MOMENTS}
        state.optimizer.state[parameter] = {"step": torch.tensor(0.0, device=parameter.device), **zeros}


def _progress(state: _Fit) -> dict[str, float]:
    return {"step": state.step, "updates": state.updates, "skipped": state.skipped, "seconds": state.seconds}


def _named_state(state: _Fit) -> dict[tuple[str, str], Tensor]:
    """Everything that is saved, by section and name: weights and buffers, and the moments of the parameters."""
    named = {("master", name): value for name, value in state.module.state_dict().items()}
    for name, parameter in state.module.named_parameters():
        moments = state.optimizer.state[parameter]
        named |= {(section, name): moments[section] for section in MOMENTS}
    return named


def _slices(state: _Fit) -> list[Slice]:
    return [
        Slice(section, name, 0, value.detach().reshape(-1)) for (section, name), value in _named_state(state).items()
    ]


def _shapes(state: _Fit) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in state.module.state_dict().items()}


def _load(state: _Fit, checkpoint: Checkpoint) -> None:
    progress = checkpoint.progress
    state.step, state.updates, state.skipped = progress["step"], progress["updates"], progress["skipped"]
    state.seconds = progress["seconds"]
    state.module.load_state_dict(checkpoint.read("master"))
    moments = {section: checkpoint.read(section) for section in MOMENTS}
    for name, parameter in state.module.named_parameters():
        held = state.optimizer.state[parameter]
        held["step"].fill_(float(state.updates))
        for section in MOMENTS:
            held[section].copy_(moments[section][name])
