"""A folder of a few thousand colour PNGs (crops of scikit-learn's two photographs) through the whole pipeline: of the
experiment file only the source and sizes change.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MICRO = Path(__file__).with_name("micro.yaml")

pytestmark = [pytest.mark.full, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four classes of 500 images, 64 x 64, the lower half of them with an alpha channel."""
    from sklearn.datasets import load_sample_images

    draw = np.random.Generator(np.random.PCG64(0))
    for photo_name, photo in zip(("china", "flower"), load_sample_images().images, strict=True):
        for side, half in (("left", photo[:, :320]), ("right", photo[:, 320:])):
            folder = tmp_path / "photos" / f"{photo_name}-{side}"
            folder.mkdir(parents=True)
            for number in range(500):
                top, left = draw.integers(0, 427 - 64), draw.integers(0, 320 - 64)
                image = Image.fromarray(half[top : top + 64, left : left + 64])
                if number >= 250:
                    image.putalpha(200)
                image.save(folder / f"{number}.png")
    return tmp_path / "photos"


def test_only_the_source_and_the_sizes_change(stx, photos, tmp_path) -> None:
    source = f"source: {{folder: {photos}, version: v1}}, resolution: 64, held_out: 200"
    text = MICRO.read_text().replace("source: mnist5k, resolution: 32, held_out: 500", source)
    (tmp_path / "own.yaml").write_text(text.replace("name: micro", "name: own"))
    stx.run("submit", str(tmp_path / "own.yaml"), limit=800)
    (info,) = [json.loads(path.read_text()) for path in stx.store.glob("stages/images-*/payload/images.json")]
    assert info["class_names"] == ["china-left", "china-right", "flower-left", "flower-right"]
    assert info["counts"] == {"train": 1800, "held_out": 200}
    samples = np.load(next(stx.store.glob("stages/sample-*/parts/640/samples-00000.npy")))
    assert samples.shape[1:] == (64, 64, 3)
    assert "china-left" in (stx.store / "experiments" / "own" / "report" / "report.html").read_text()
    assert all(
        line["verb"] == "cached"
        for line in json.loads(stx.run("plan", "--json", str(tmp_path / "own.yaml")).stdout)["stages"]
    )
