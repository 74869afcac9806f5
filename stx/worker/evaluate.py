"""The evaluate stage of one sample stage: scores of each of its parts against the train split, in a classifier's
feature space. It grows with them.

    parts/<images>/scores.json   {"scores": {name: number}, "protocol": everything the numbers depend on}

A score is named after what it is (frechet_distance, never FID), and its protocol says in whose features, between which
sets, of which samples.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from stx import named, npy, records
from stx.evaluation import extractor
from stx.evaluation.base import Extracted
from stx.paths import LABELS, SCORES, PartDir, Store, ema_sections
from stx.spec import StageSpec, read_artifact
from stx.times import LAST_STEP
from stx.worker import publish
from stx.worker.attempt import Attempt
from stx.worker.classifier import Judge, load
from stx.worker.device import device
from stx.worker.images import read_split
from stx.worker.inputs import verified
from stx.worker.progress import Progress, conclude_part
from stx.worker.sample import ready_parts

SPLIT = "train"
_NAME_DIGITS = 12


def run(attempt: Attempt) -> None:
    """Score every part that is wanted, whose samples are there, and that has no scores."""
    if not ready_parts(attempt, upstream="samples"):
        return
    attempt.heart.beat("start")
    judge_input, batch = attempt.input("extractor.classifier"), attempt.science["batch"]
    judge = load(judge_input.payload)
    name = extractor.register(judge.network, key=judge_input.key[:_NAME_DIGITS], batch=batch)
    real_images = read_split(attempt.input("against"), SPLIT)
    attempt.heart.beat("evaluate")
    real = extractor.extract(name, *real_images, batch=batch, cuda=device().type == "cuda")
    while todo := ready_parts(attempt, upstream="samples"):
        attempt.leave_if_asked()
        _score_part(attempt, images=todo[0], name=name, judge=judge, real=real)


def _score_part(attempt: Attempt, *, images: int, name: str, judge: Judge, real: Extracted) -> None:
    source = attempt.input("samples").stage.part("sample", images)
    science = attempt.science
    progress = Progress(attempt, total=_sampling(attempt).science["num_samples"], phase="evaluate")
    progress.beat()
    generated = _extract_samples(source, name=name, batch=science["batch"])
    scores: dict[str, float] = {}
    for metric in science["metrics"]:
        progress.beat()
        scores |= named.load("stx.evaluation", metric).compute(generated, real)
    protocol = _protocol(attempt, judge=judge, num_samples=len(generated.labels), num_real=len(real.labels))
    folder = attempt.stage.part(attempt.kind, images).path
    publish.publish_json(folder / SCORES, {"scores": scores, "protocol": protocol})
    progress.advance(len(generated.labels))
    conclude_part(progress, images=images)


def _extract_samples(source: PartDir, *, name: str, batch: int) -> Extracted:
    """What the extractor makes of one part of samples."""
    listed = read_artifact(source.artifact).files
    labels = torch.from_numpy(npy.load(verified(source, LABELS), dtype=np.int64, dims=1))
    chunks = [npy.load(verified(source, file), dtype=np.uint8, dims=4) for file in sorted(listed) if file != LABELS]
    images = torch.from_numpy(np.concatenate(chunks)).permute(0, 3, 1, 2).contiguous()
    return extractor.extract(name, images, labels, batch=batch, cuda=device().type == "cuda")


def _protocol(attempt: Attempt, *, judge: Judge, num_samples: int, num_real: int) -> dict[str, Any]:
    """Everything the scores depend on, as facts and keys."""
    return {
        "num_samples": num_samples,
        "num_real": num_real,
        "split": SPLIT,
        "against": attempt.input("against").key,
        "samples": attempt.input("samples").key,
        "extractor": {
            "classifier": attempt.input("extractor.classifier").key,
            "feature_width": judge.about["shape"]["feature_width"],
            "held_out_accuracy": judge.about["held_out"]["accuracy"],
        },
        "batch": attempt.science["batch"],
        **_sampling_protocol(attempt, sampling=_sampling(attempt)),
    }


def _sampling(attempt: Attempt) -> StageSpec:
    """What the sample stage was."""
    return StageSpec.parse(records.read(attempt.input("samples").stage.record))


def _sampling_protocol(attempt: Attempt, *, sampling: StageSpec) -> dict[str, Any]:
    science: Mapping[str, Any] = sampling.science
    found = {name: science[name] for name in ("seed", "labels", "weights")} | {"sample_batch": science["batch"]}
    if science["weights"] == "ema":
        store = Store(attempt.stage.path.parent.parent)
        trained = records.read(store.stage("train", sampling.inputs["run"].key).record)
        first = next(iter(ema_sections(trained["science"]["ema_decay"])))
        found["ema_decay"] = science.get("ema_decay", first)
    if science["sampler"]["solver"] == "sde":
        found["last_step"] = LAST_STEP  # unless the sampler says another
    return found | dict(science["sampler"])
