"""What the command line promises about whole experiments, on real training with micro models."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MICRO = HERE / "micro.yaml"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TRAIN_ONLY = """
name: {name}
stages:
  images: {{kind: images, source: mnist5k, resolution: 32, held_out: 500}}
  vae: {{kind: autoencoder, images: images, steps: 6, batch: 8}}
  latents: {{kind: latents, images: images, autoencoder: vae}}
  run:
    kind: train
    latents: latents
    model: SiT-Mu/2
    global_batch: 16
    lr: 1.0e-3
    ema_decay: 0.9
    precision: fp32
    steps: {steps}
"""


def experiment(folder: Path, *, name: str = "small", steps: int = 40) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(TRAIN_ONLY.format(name=name, steps=steps))
    return str(path)


def train_stage(stx) -> Path:
    (stage,) = stx.store.glob("stages/train-*")
    return stage


def outcomes(stage: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(stage.glob("attempts/*/outcome-0.json"))]


def weights_digest(stage: Path, images: int) -> str:
    return json.loads((stage / "milestones" / str(images) / "artifact.json").read_text())["digest"]


def wait_for(condition, *, what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.1)


def verbs(stx, *arguments: str) -> dict[str, str]:
    result = stx.run("plan", "--json", *arguments)
    return {line["name"]: line["verb"] for line in json.loads(result.stdout)["stages"]}


def test_raising_the_steps_resumes_and_ends_with_the_weights_of_one_straight_run(with_latents, new_stx, micro):
    stx = with_latents
    stx.run("submit", experiment(stx.folder, steps=20))
    assert verbs(stx, experiment(stx.folder, steps=40))["run"] == "resume"
    stx.run("submit", experiment(stx.folder, steps=40), "--update")
    first, second = outcomes(train_stage(stx))
    assert first["info"]["to"] == second["info"]["from"] == 320
    assert second["info"]["to"] == 640
    assert second["info"]["recomputed_images"] == 0

    straight = new_stx("straight")
    straight.run("submit", experiment(straight.folder, steps=40))
    assert weights_digest(train_stage(stx), 640) == weights_digest(train_stage(straight), 640)


def test_fewer_steps_reuse_a_kept_milestone_and_a_passed_one_is_refused_with_the_kept_ones(
    with_latents,
):
    stx = with_latents
    file = experiment(stx.folder, steps=40)
    stx.run("submit", file, "--set", "stages.run.milestones=[20]")
    assert set(verbs(stx, experiment(stx.folder, steps=20)).values()) == {"cached"}
    refused = stx.run("plan", experiment(stx.folder, steps=30), expect=2)
    assert "Traceback" not in refused.stderr
    assert "320" in refused.stderr
    assert "640" in refused.stderr


def test_two_experiments_submitted_at_once_train_what_they_share_once(with_latents):
    stx = with_latents
    both = [stx.start("submit", experiment(stx.folder, name=name, steps=40)) for name in ("left", "right")]
    for process in both:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, f"{out}\n{err}"
    assert set(stx.attempts().values()) == {1}


def test_ctrl_c_saves_and_leaves_and_the_same_command_goes_on(with_latents, new_stx):
    stx = with_latents
    file = experiment(stx.folder, steps=400)
    process = stx.start("submit", file)
    wait_for(
        lambda: (stx.store / "stages").exists() and any(stx.store.glob("stages/train-*/attempts/001/metrics.jsonl")),
        what="training",
    )
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, f"{out}\n{err}"
    assert [outcome["result"] for outcome in outcomes(train_stage(stx))] == ["YIELDED"]
    wait_for(lambda: not stx.processes(), what="the supervisor to leave")

    stx.run("submit", file)
    first, second = outcomes(train_stage(stx))
    assert second["info"]["from"] == first["info"]["to"] > 0
    assert second["info"]["recomputed_images"] == 0


def test_a_killed_coordinator_leaves_the_jobs_running_and_the_same_command_adopts_them(with_latents):
    stx = with_latents
    file = experiment(stx.folder, steps=1500)
    process = stx.start("submit", file)
    wait_for(lambda: any(stx.store.glob("stages/train-*/attempts/001/metrics.jsonl")), what="training")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert stx.processes(), "the job went down with its coordinator"
    stx.run("submit", file)
    assert [outcome["result"] for outcome in outcomes(train_stage(stx))] == ["COMPLETED"]


def test_changing_the_guidance_reuses_everything_above_it(micro):
    changed = verbs(micro, str(MICRO), "--set", "stages.phase2.alignment.guidance=7.0")
    assert {name for name, verb in changed.items() if verb != "cached"} == {"phase2", "samples:phase2", "scores:phase2"}


def test_a_finished_experiment_submitted_again_starts_nothing(micro):
    before = micro.attempts()
    micro.run("submit", str(MICRO))
    assert micro.attempts() == before


def test_a_truncated_shard_fails_the_stage_and_is_named(with_latents):
    stx = with_latents
    shard = next(stx.store.glob("stages/latents-*/payload/train-00000.tar"))
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    result = stx.run("submit", experiment(stx.folder), expect=3)
    assert "train-00000.tar" in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
