import json
import math

import pytest
import torch
from torch import nn

from jobs import runtime
from stx.worker import fit as fits
from stx.worker.attempt import NonFinite, Yielded
from stx.worker.checkpoint import found

STEPS, BATCH = 12, 4


class Net(nn.Module):
    """Small, with a buffer that changes as it trains."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(3, 5), nn.SiLU(), nn.Linear(5, 2))
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        return self.layers(x)


def loss_of(net, *, bad=()):
    """Terms of a step's batch; on the steps in `bad` they are not finite."""

    def loss(step):
        x = torch.sin(torch.arange(step * BATCH, (step + 1) * BATCH)[:, None] * torch.tensor([1.0, 2.0, 3.0]))
        square = net(x).square().mean()
        return {"square": square * (math.nan if step in bad else 1), "size": 0.1 * net(x).abs().mean()}

    return loss


def run(attempt, *, net=None, bad=(), steps=STEPS, loss=None):
    net = net or Net()
    options = {"steps": steps, "batch": BATCH, "lr": 1e-2, "grad_clip": 1.0, "log_every": 2}
    fits.fit(attempt, module=net, loss=loss or loss_of(net, bad=bad), **options)
    return net


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def metrics(attempt):
    return [json.loads(line) for line in attempt.folder.metrics.read_text().splitlines()]


def test_a_checkpoint_beats_the_heart_of_its_attempt(workshop):
    attempt = workshop.attempt("classifier", science={})
    attempt.heart.beat("save", images=8)
    fits.keeper_of(attempt).beat()
    assert (attempt.heart.counter, attempt.heart.phase) == (2, "save")


def test_a_fit_learns_and_logs_what_it_did(workshop):
    attempt = workshop.attempt("classifier", science={})
    run(attempt)
    lines = metrics(attempt)
    assert [line["images"] for line in lines] == [8, 16, 24, 32, 40, 48]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert lines[0]["loss"] == pytest.approx(lines[0]["square"] + lines[0]["size"], rel=1e-6)
    assert {"step", "grad_norm", "images_per_s", "loader_wait_s", "time"} <= lines[0].keys()


@pytest.mark.parametrize("stop_at", [1, 5, 11])
def test_a_fit_that_was_stopped_continues_bit_for_bit(workshop, monkeypatch, stop_at):
    whole = run(workshop.attempt("classifier", science={"seed": 1}))
    net = Net()
    inner = loss_of(net)

    def stopping(step):
        monkeypatch.setattr(runtime, "_stop", step + 1 >= stop_at)
        return inner(step)

    first = workshop.attempt("classifier", science={})
    with pytest.raises(Yielded):
        run(first, net=net, loss=stopping)
    assert first.notes == {"saved": True, "images": stop_at * BATCH}
    monkeypatch.setattr(runtime, "_stop", False)
    assert equal(run(workshop.attempt("classifier", science={})), whole)


def test_a_finished_fit_is_not_trained_again(workshop):
    whole = run(workshop.attempt("classifier", science={}))

    def never(step):
        pytest.fail("a finished fit asked for a batch")

    assert equal(run(workshop.attempt("classifier", science={}), loss=never), whole)


def test_a_step_with_bad_gradients_is_skipped_and_five_in_a_row_end_it(workshop, caplog):
    net = run(workshop.attempt("classifier", science={"seed": 1}), bad={3, 4})
    assert all(torch.isfinite(value).all() for value in net.state_dict().values())
    assert "skipped step=3" in caplog.text
    with pytest.raises(NonFinite, match="5 steps in a row"):
        run(workshop.attempt("classifier", science={"seed": 2}), bad=range(2, 9))


def test_a_save_that_does_not_fit_the_time_left_is_not_begun(workshop, monkeypatch, stop):
    monkeypatch.setenv("STX_DEADLINE", "0")
    attempt = workshop.attempt("classifier", science={})
    stop.now()
    monkeypatch.setattr("stx.worker.checkpoint.Keeper.save_seconds", 5.0)
    with pytest.raises(Yielded):
        run(attempt)
    assert attempt.notes == {"saved": False, "recomputed_images": BATCH}
    assert found(attempt.stage.checkpoints) == []


def test_checkpoints_are_written_when_due_and_only_the_newest_kept(workshop):
    attempt = workshop.attempt("classifier", science={}, checkpoint_every_s=0)
    run(attempt)
    assert [path.name for path in found(attempt.stage.checkpoints)] == ["44-001", "48-001"]
