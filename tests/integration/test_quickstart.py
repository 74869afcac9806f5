"""The quickstart, shortened: every stage of configs/quickstart.yaml on real images, down to the report's figures."""

import json

import pytest
from PIL import Image


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_shortened_quickstart_ends_with_a_report_over_every_stage(short):
    folder = short.store / "experiments" / "quickstart" / "report"
    assert str(folder / "report.md") in (short.folder / "said").read_text()
    text = (folder / "report.md").read_text()
    for figure in folder.glob("*.png"):
        with Image.open(figure) as image:
            assert min(image.size) > 200
        assert figure.name in text
    assert {"score-images_seen.png", "score-total_compute.png", "samples.png"} <= {p.name for p in folder.glob("*.png")}
    assert "one seed" in text
    assert "not FID" in text
    scores = [json.loads(path.read_text()) for path in short.store.glob("stages/evaluate-*/parts/*/scores.json")]
    assert len(scores) == 16
    assert all(score["protocol"]["num_samples"] == 100 for score in scores)
    (status,) = json.loads(short.run("status", "quickstart", "--json").stdout)["experiments"]
    assert status["counts"] == {"DONE": 27}
