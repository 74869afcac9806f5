"""The train stage: builds everything from an attempt, restores the newest checkpoint, and hands over to the loop.

Order matters at the start: fp32 weights go into the module before DeepSpeed is made from it; then Adam's moments, the
EMAs and the step count are set on the flat partition. There is no random state: the loader makes everything from (seed,
n).
"""

import logging
import socket
import time
from typing import TYPE_CHECKING, Any

import torch

from stx import records
from stx.data.features import FeatureCache
from stx.data.latents import Latents
from stx.data.loader import TrainLoader
from stx.errors import ConfigError, DataError
from stx.model.sit import SiT
from stx.paths import ema_sections
from stx.times import Distribution
from stx.worker import milestones
from stx.worker.attempt import Attempt
from stx.worker.checkpoint import Checkpoint, Identity, Keeper
from stx.worker.loop import Clock, Loop, Progress, read_goals
from stx.worker.module import Inputs, TrainingModule, build
from stx.worker.ranks import Ranks, process_group
from stx.worker.sit_weights import load_teacher
from stx.worker.stopwatch import Stopwatch
from stx.worker.telemetry import Meter
from stx.worker.zero.engine import BF16_WEIGHTS, EngineOptions, make
from stx.worker.zero.partition import MASTER, Partition

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

logger = logging.getLogger(__name__)


def run(attempt: Attempt) -> None:
    """Train until everything that is wanted is published."""
    check_supported(attempt)
    attempt.heart.beat("start")
    with process_group(attempt) as ranks:
        goals = read_goals(attempt, ranks, global_batch=attempt.science["global_batch"])
        if ranks.agree(set(goals) <= set(attempt.stage.parts("train"))):
            return
        loop = start(attempt, ranks)
        loop.run()
        goals = read_goals(attempt, ranks, global_batch=attempt.science["global_batch"])
        if ranks.rank == 0:
            milestones.check_passed(attempt, goals, images=loop.progress.images)


def check_supported(attempt: Attempt) -> None:
    """Refuse by name what this version does not do; nothing is ignored."""
    layout, science = attempt.layout, attempt.science
    if layout["compile"]:
        raise ConfigError("compile = true is not built yet", hint="the only one is false")
    rows = attempt.world_size * layout["micro_batch"] * layout["accumulation"]
    assert rows == science["global_batch"], (
        f"{rows} rows a step in the layout, global_batch is {science['global_batch']}"
    )


def start(attempt: Attempt, ranks: Ranks) -> Loop:
    """Everything up to the first step."""
    began = time.monotonic()
    goals = read_goals(attempt, ranks, global_batch=attempt.science["global_batch"])
    keeper = Keeper(
        attempt.stage.checkpoints,
        attempt.number,
        Identity(attempt.key, attempt.spec.recipe, attempt.science_digest),
        ranks,
        attempt.checkpoint_keep,
        attempt.heart.again,
    )
    restored = keeper.restore(accept_code=attempt.accept_code)
    if restored is not None and ranks.rank == 0:
        milestones.publish_passed(attempt, goals, images=restored.images, rejected=keeper.rejected)
    loader, module = _build(attempt, ranks)
    engine, partition = _engine(attempt, ranks, module=module, restored=restored)
    progress = Progress() if restored is None else _progress(restored)
    attempt.notes["host"] = socket.gethostname()
    total = goals[-1] if goals else progress.images
    meter = Meter(
        attempt=attempt,
        ranks=ranks,
        log_every=attempt.where["log_every"],
        total=total,
        teacher=_stopwatch(module, ranks.device),
    )
    logger.info(
        "started images=%d goals=%s ranks=%d seconds=%.1f", progress.images, goals, ranks.size, time.monotonic() - began
    )
    return Loop(
        attempt=attempt,
        ranks=ranks,
        engine=engine,
        partition=partition,
        loader=loader,
        keeper=keeper,
        meter=meter,
        progress=progress,
        goals=goals,
        clock=Clock(before=progress.seconds),
        saved_images=progress.images,
        reached=reached_before(attempt),
    )


def _build(attempt: Attempt, ranks: Ranks) -> tuple[TrainLoader, TrainingModule]:
    """The loader and the module with its initial weights, on the rank's device."""
    science, options = attempt.science, attempt.science["alignment"]
    latents = Latents(attempt.input("latents").payload)
    cache = _cache(attempt) if "alignment.features" in attempt.inputs else None
    inputs = Inputs(latents.info.channels, latents.info.size, latents.info.num_classes)
    teacher = _teacher(attempt, ranks) if cache is None and "alignment.teacher" in attempt.inputs else None
    width = None if cache is None else cache.info.width
    module = build(science, inputs=inputs, teacher=teacher, feature_width=width)
    loader = TrainLoader(
        latents,
        seed=science["seed"],
        global_batch=science["global_batch"],
        micro_batch=attempt.layout["micro_batch"],
        rank=ranks.rank,
        world_size=ranks.size,
        label_dropout=science["label_dropout"],
        order_window=science["order_window"],
        distribution=Distribution(science["t_distribution"], science.get("interpolant", "linear")),
        stratified_t=science.get("stratified_t", False),
        noise_on=attempt.layout["noise_on"],
        device=ranks.device,
        **_window(options, global_batch=science["global_batch"], cache=cache),
    )
    module.model.activation_checkpointing = attempt.layout["activation_checkpointing"]
    return loader, module.to(ranks.device)


def _stopwatch(module: TrainingModule, device: torch.device) -> Stopwatch | None:
    """Of the teacher that an alignment holds, where it has one."""
    (teacher,) = getattr(module.alignment, "held", (None,))
    return None if teacher is None else Stopwatch(teacher, device=device)


def _cache(attempt: Attempt) -> FeatureCache:
    """The cached features; one that was made for other rows than this run asks for is refused."""
    science, options = attempt.science, attempt.science["alignment"]
    cache = FeatureCache(attempt.input("alignment.features").payload)
    asked = (list(options["window"]), science["t_distribution"], options["teacher_block"])
    made = (list(cache.info.window), cache.info.t_distribution, cache.info.teacher_block)
    if asked != made:
        raise DataError(
            f"was made for window, t distribution, teacher block {made}; this run has {asked}",
            where=str(attempt.input("alignment.features").payload),
        )
    return cache


def _window(options: dict[str, Any], *, global_batch: int, cache: FeatureCache | None) -> dict[str, Any]:
    """Where and until when the alignment acts. Without one, or at weight 0, nobody asks for the window."""
    if options["method"] == "none" or options["weight"] == 0:
        return {}
    stop_step = options["stop_step"]
    stop_images = None if stop_step is None else stop_step * global_batch
    return {"window": tuple(options["window"]), "stop_images": stop_images, "features": cache}


def _teacher(attempt: Attempt, ranks: Ranks) -> SiT:
    """The frozen teacher, in the student's precision: autocast reaches it in the student's forward pass."""
    shape = attempt.where["teacher_shape"]
    teacher = load_teacher(attempt.input("alignment.teacher").payload, shape=shape).to(ranks.device)
    return teacher.to(torch.bfloat16) if attempt.science["precision"] == BF16_WEIGHTS else teacher


def _engine(
    attempt: Attempt, ranks: Ranks, *, module: TrainingModule, restored: Checkpoint | None
) -> tuple["DeepSpeedEngine", Partition]:
    """DeepSpeed around the module, in the state of the checkpoint if there is one."""
    science, layout = attempt.science, attempt.layout
    if restored is not None:
        module.load_state_dict(restored.read(MASTER))
    options = EngineOptions(
        zero_stage=layout["zero_stage"],
        precision=science["precision"],
        micro_batch=layout["micro_batch"],
        accumulation=layout["accumulation"],
        lr=science["lr"],
        betas=tuple(science["betas"]),
        weight_decay=science["weight_decay"],
        emas=ema_sections(science["ema_decay"]),
    )
    engine, partition = make(module, options, ranks=ranks)
    if restored is not None:
        restored.fill(partition.restorable())
        partition.set_updates(restored.progress["updates"])
    return engine, partition


def _progress(restored: Checkpoint) -> Progress:
    known = {name: value for name, value in restored.progress.items() if name != "updates"}
    return Progress(**known)


def reached_before(attempt: Attempt) -> int:
    """How many images earlier attempts had seen, saved or not, as far as their heartbeats tell."""
    earlier = [number for number in attempt.stage.attempts() if number < attempt.number]
    beats = [records.find(attempt.stage.attempt(number).heartbeat) for number in earlier]
    return max((int(beat["numbers"].get("images", 0)) for beat in beats if beat), default=0)
