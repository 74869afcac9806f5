import json
import math

import torch

from stx.worker.ranks import ALONE
from stx.worker.telemetry import Meter


def lines_of(attempt):
    return [json.loads(line) for line in attempt.folder.metrics.read_text().splitlines()]


def test_a_line_holds_means_over_the_steps_since_the_last(workshop):
    attempt = workshop.attempt("classifier", science={})
    meter = Meter(attempt=attempt, ranks=ALONE, log_every=2, total=32)
    for step, loss in enumerate([1.0, 3.0, 5.0, 7.0], start=1):
        meter.begin_step(images=8 * (step - 1))
        for _ in range(2):
            # Two micro-batches: their terms are parts of one sum.
            meter.add({"loss": torch.tensor(loss / 2), "target_mean_square": torch.tensor(loss / 2)})
        meter.waited(0.25)
        meter.end_step(step=step, images=8 * step, grad_norm=0.5)
    lines = lines_of(attempt)
    assert [(line["images"], line["step"], line["loss"]) for line in lines] == [(16, 2, 2.0), (32, 4, 6.0)]
    assert [line["loader_wait_s"] for line in lines] == [0.5, 0.5]
    assert lines[1]["target_rms"] == math.sqrt(6.0)
    assert meter.latest()["loss"] == 6.0


def test_a_run_that_is_shorter_than_its_interval_has_a_line_where_a_result_is_wanted(workshop):
    attempt = workshop.attempt("classifier", science={})
    meter = Meter(attempt=attempt, ranks=ALONE, log_every=50, total=16)
    for step in (1, 2):
        meter.begin_step(images=8 * (step - 1))
        meter.add({"loss": torch.tensor(float(step))})
        meter.end_step(step=step, images=8 * step, grad_norm=0.5, wanted=step == 2)
    assert [(line["images"], line["loss"]) for line in lines_of(attempt)] == [(16, 1.5)]


def test_a_number_that_is_none_is_null(workshop):
    attempt = workshop.attempt("classifier", science={})
    meter = Meter(attempt=attempt, ranks=ALONE, log_every=1, total=8)
    meter.begin_step(images=0)
    meter.add({"loss": torch.tensor(math.nan)})
    meter.end_step(step=1, images=8, grad_norm=math.inf)
    assert lines_of(attempt)[0]["loss"] is None
    assert lines_of(attempt)[0]["grad_norm"] is None


def test_time_that_is_not_training_is_left_out_of_the_rate(workshop):
    attempt = workshop.attempt("classifier", science={})
    meter = Meter(attempt=attempt, ranks=ALONE, log_every=1, total=8)
    meter.begin_step(images=0)
    meter.paused(-100.0)
    meter.end_step(step=1, images=800, grad_norm=1.0)
    assert 7.9 < lines_of(attempt)[0]["images_per_s"] <= 8.0


def test_the_heartbeat_tells_how_far_it_is(workshop):
    attempt = workshop.attempt("classifier", science={})
    meter = Meter(attempt=attempt, ranks=ALONE, log_every=1, total=8)
    meter.begin_step(images=0)
    meter.add({"loss": torch.tensor(2.0)})
    meter.end_step(step=1, images=8, grad_norm=1.0)
    beat = json.loads(attempt.folder.heartbeat.read_text())
    assert beat["phase"] == "step"
    assert (beat["numbers"]["images"], beat["numbers"]["total"], beat["numbers"]["loss"]) == (8, 8, 2.0)
