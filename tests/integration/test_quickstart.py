"""The quickstart, shortened: every stage of configs/quickstart.yaml on real images, down to the report's figures."""

import json
from pathlib import Path

import pytest
from PIL import Image

CONFIG = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
# The same file with fewer steps and samples: nothing else is changed.
SHORT = {
    "stages.vae.steps": "60",
    "stages.judge.steps": "60",
    "stages.vanilla.steps": "30",
    "stages.vanilla.milestones": "[12, 24, 30]",
    "defaults.train.steps": "24",
    "defaults.train.milestones": "[12, 24]",
    "stages.features.draws": "1",
    "stages.samples.num_samples": "100",
    "stages.samples.sampler.steps": "8",
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_shortened_quickstart_ends_with_a_report_over_every_stage(stx):
    sets = [word for path, value in SHORT.items() for word in ("--set", f"{path}={value}")]
    done = stx.run("submit", str(CONFIG), *sets, limit=900)
    folder = stx.store / "experiments" / "quickstart" / "report"
    assert str(folder / "report.md") in done.stdout + done.stderr
    text = (folder / "report.md").read_text()
    for figure in folder.glob("*.png"):
        with Image.open(figure) as image:
            assert min(image.size) > 200
        assert figure.name in text
    assert {"score-images_seen.png", "score-total_compute.png", "samples.png"} <= {p.name for p in folder.glob("*.png")}
    assert "one seed" in text
    assert "not FID" in text
    scores = [json.loads(path.read_text()) for path in stx.store.glob("stages/evaluate-*/parts/*/scores.json")]
    assert len(scores) == 16
    assert all(score["protocol"]["num_samples"] == 100 for score in scores)
    (status,) = json.loads(stx.run("status", "quickstart", "--json").stdout)["experiments"]
    assert status["counts"] == {"DONE": 27}
