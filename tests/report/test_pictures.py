"""Sample grids and what blocks see: the right cells in the right places, exact where small, reduced where large."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stx.errors import DataError
from stx.report import pictures, told
from stx.report.collect import collect
from stx.report.facts import Facts
from stx.report.pictures import Strip


def decoded(uri: str) -> tuple[str, np.ndarray[Any, Any]]:
    kind, data = uri.removeprefix("data:image/").split(";base64,")
    return kind, np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))


def npy(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def coloured(count: int, side: int) -> list[np.ndarray[Any, Any]]:
    cells = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return list(cells)


def test_small_cells_are_kept_to_the_pixel_with_clear_gaps() -> None:
    cells = coloured(3, 32)
    kind, image = decoded(pictures.strip_uri(Strip("a", 0, cells, "")))
    assert (kind, image.shape) == ("png", (32, 3 * 32 + 2 * pictures.GAP, 4))
    for number, cell in enumerate(cells):
        left = number * (32 + pictures.GAP)
        assert (image[:, left : left + 32, :3] == cell).all()
        assert (image[:, left + 32 : left + 32 + pictures.GAP, 3] == 0).all()


def test_grey_cells_become_grey_and_not_red() -> None:
    grey = [np.full((32, 32, 1), 77, dtype=np.uint8)]
    _, image = decoded(pictures.strip_uri(Strip("a", 0, grey, "")))
    assert (image[..., :3] == 77).all()


def test_large_cells_are_reduced() -> None:
    kind, image = decoded(pictures.strip_uri(Strip("a", 0, coloured(2, 256), "")))
    assert kind == "webp"
    assert image.shape[:2] == (128, 2 * 128 + pictures.GAP)


def test_grids_show_every_series_at_the_last_common_milestone_and_then_the_earlier_ones(facts: Facts) -> None:
    ((last, earlier),) = pictures.sample_grids(facts)
    assert (last.images, earlier.images) == (32_000, 16_000)
    labels = ["vanilla", "phase1", "phase2 guidance=1", "phase2 guidance=5", "phase2 guidance=30"]
    assert [row.label.split(" (seed")[0] for row in last.rows] == labels
    assert [row.index for row in last.rows] == [0, 1, 2, 3, 4]
    assert last.columns == tuple(f"digit {n}" for n in range(10))
    assert all(len(row.cells) == 10 for row in last.rows)


def test_the_first_sample_of_each_class_is_shown_in_the_order_of_classes(world: Any, add_scored_run: Any) -> None:
    add_scored_run(world, "vanilla", method="vanilla", milestones=(16_000,))
    world.save()
    folder = next(world.store.stages.glob("sample-*/parts/16000"))
    (folder / "labels.npy").write_bytes(npy(np.array([2, 2, 0, 1, 0], dtype=np.int64)))
    shades = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1) * np.ones((1, 8, 8, 3), dtype=np.uint8)
    (folder / "samples-00000.npy").write_bytes(npy(shades))
    ((grid,),) = pictures.sample_grids(collect(world.store, world.experiment))
    assert grid.columns == ("0", "1", "2", "2", "0")
    assert [int(cell[0, 0, 0]) for cell in grid.rows[0].cells] == [2, 3, 0, 1, 4]
    assert told.SAMPLES.startswith("Not selected: the first of each class, then the others in order")


def test_a_grid_as_png_holds_the_samples(facts: Facts) -> None:
    ((grid, *_),) = pictures.sample_grids(facts)
    image = np.asarray(Image.open(io.BytesIO(pictures.grid_png(grid))).convert("RGB"))
    assert image.shape[1] > image.shape[0] > 200
    assert image.min() == 0


def test_looks_put_the_noisy_input_the_blocks_and_the_guided_features_side_by_side(inspected: Any) -> None:
    facts = collect(inspected.store, inspected.experiment)
    looks = pictures.looks(facts, pictures.inspected(facts))
    assert [look.title for look in looks][:2] == ["Held-out image 1, class ant", "Held-out image 2, class bee"]
    vanilla, phase2 = looks[1].panels
    assert vanilla.columns == ("x_t", "1", "2", "3")
    assert phase2.columns == ("x_t", "1", "2", "3", "f_c", "f_g")
    assert phase2.guided == "block 3 of the teacher, guidance 5"
    assert [row.label for row in phase2.rows] == ["0.2", "0.8"]
    pca, guided = facts.inspections[1].array("pca.npy"), facts.inspections[1].array("guided.npy")
    cell = phase2.rows[1].cells
    assert (cell[2][::4, ::4] == pca[1, 1, 1]).all()
    assert (cell[5][::4, ::4] == guided[1, 1, 1]).all()


def test_deep_networks_show_blocks_from_the_first_to_the_last() -> None:
    assert pictures._spread(range(28), 6) == [0, 5, 11, 16, 22, 27]


def test_probes_are_charted_for_every_time(inspected: Any) -> None:
    from stx.report.curves import probe_charts

    facts = collect(inspected.store, inspected.experiment)
    charts = probe_charts(facts, pictures.inspected(facts))
    assert [chart.title for chart in charts] == ["Linear probe at t = 0.2", "Linear probe at t = 0.8"]
    assert [key.label for key in charts[0].keys] == ["vanilla (seed 0, 32 k images)", "phase2 (seed 0, 32 k images)"]
    assert all(chart.png is None for chart in charts)


def test_samples_and_arrays_are_never_unpickled(inspected: Any, tmp_path: Path) -> None:
    facts = collect(inspected.store, inspected.experiment)
    stream = io.BytesIO()
    np.save(stream, np.array([{}], dtype=object), allow_pickle=True)
    (facts.inspections[0].folder / "pca.npy").write_bytes(stream.getvalue())
    with pytest.raises(DataError, match="a pickle, which is never read"):
        pictures.looks(facts, pictures.inspected(facts))
    assert len(collect(inspected.store, inspected.experiment).inspections) == len(facts.inspections) - 1
