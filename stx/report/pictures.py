"""Pictures of the report: generated samples with the same noise down each column, and what blocks see of an image.

Both are strips: the cells of one row as one small image, small cells exactly, large ones reduced. A page of a hundred
runs stays a page because rows beyond the first MAX_ROWS are left out, and said to be.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from stx import npy
from stx.paths import samples_file
from stx.report import canvas
from stx.report.facts import GUIDED, NOISY, PCA, Facts, Inspection, Samples, labels_in

COLUMNS = 10
MAX_ROWS = 16
MAX_MILESTONES = 3
MAX_CELL = 128  # pixels; larger images are reduced
EXACT = 64  # cells up to here are stored without loss
GAP = 2
MAX_BLOCKS = 6
MAX_IMAGES = 3
MAX_PANELS = 6


@dataclass(frozen=True)
class Strip:
    """A row of cells of equal size, uint8 (H, W, 1 or 3) each."""

    label: str
    index: int
    cells: Sequence[Any]
    alt: str


@dataclass(frozen=True)
class Grid:
    """Strips under common column heads. `left_out`: how many more there would be."""

    name: str
    images: int
    columns: tuple[str, ...]
    rows: tuple[Strip, ...]
    left_out: int = 0

    @property
    def title(self) -> str:
        """What it shows."""
        return f"Generated at {self.images:,} images seen"


@dataclass(frozen=True)
class Panel:
    """One series' view of one image: rows are times, columns the noisy input, blocks, and the teacher's features."""

    label: str
    index: int
    columns: tuple[str, ...]
    rows: tuple[Strip, ...]
    guided: str


@dataclass(frozen=True)
class Look:
    """One held-out image as several series see it."""

    title: str
    panels: tuple[Panel, ...]
    left_out: int


def sample_grids(facts: Facts) -> list[list[Grid]]:
    """Per sampling protocol its grids by milestone: first the last that most series have, then earlier ones; of each
    series its first seed.
    """
    found = []
    for number, protocol in enumerate(dict.fromkeys(one.protocol_key for one in facts.samples)):
        members = [one for one in facts.samples if one.protocol_key == protocol]
        series = {count: {m.series for m in members if m.images == count} for count in {m.images for m in members}}
        last = max(series, key=lambda count: (len(series[count]), count))
        others = [count for count in sorted(series, reverse=True) if count != last]
        name = "samples" if number == 0 else f"samples-{number + 1}"
        counts = [last, *_spread(others, MAX_MILESTONES - 1)]
        found.append([_grid(facts, [m for m in members if m.images == count], name=name) for count in counts])
    return found


def _grid(facts: Facts, members: Sequence[Samples], *, name: str) -> Grid:
    first: dict[Any, Samples] = {}
    for one in sorted(members, key=lambda m: m.seed):
        first.setdefault(one.series, one)
    order = {series: facts.place(series, otherwise=len(facts.series) + n) for n, series in enumerate(first)}
    chosen = sorted(first.values(), key=lambda one: order[one.series])
    columns = _columns(chosen[0])
    heads = tuple(class_name(facts.class_names, label) for _, label in columns)
    rows = [
        Strip(
            label=f"{one.series.label} (seed {one.seed})",
            index=order[one.series],
            cells=_cells(one, [index for index, _ in columns]),
            alt=f"Samples of {one.series.label}, seed {one.seed}, of the classes {', '.join(heads)}",
        )
        for one in chosen[:MAX_ROWS]
    ]
    return Grid(name, chosen[0].images, heads, tuple(rows), left_out=max(0, len(chosen) - MAX_ROWS))


def class_name(names: Sequence[str], label: int) -> str:
    """A class as people call it."""
    return str(names[label]) if 0 <= label < len(names) else str(label)


def _cells(one: Samples, indices: Sequence[int]) -> list[Any]:
    images = _images(one)
    return [np.asarray(images[index]) for index in indices if index < len(images)]


def _images(one: Samples) -> Any:
    """The images of the first file."""
    return npy.load(one.folder / samples_file(0), dtype=np.uint8, dims=4, mapped=True)


def _columns(one: Samples) -> list[tuple[int, int]]:
    """(index, label) of the samples shown, all from the first file: the first of each class, then the rest."""
    labels = [int(label) for label in labels_in(one.folder)[: len(_images(one))]]
    first = {label: index for index, label in reversed(list(enumerate(labels)))}
    rest = [index for index in range(len(labels)) if index not in first.values()]
    chosen = [*(first[label] for label in sorted(first)), *rest][:COLUMNS]
    return [(index, labels[index]) for index in chosen]


def _spread(values: Sequence[Any], limit: int) -> list[Any]:
    """At most `limit` of them, evenly spaced, the first and the last among them."""
    if len(values) <= limit:
        return list(values)
    return [values[round(place * (len(values) - 1) / (limit - 1))] for place in range(limit)]


def inspected(facts: Facts) -> list[Inspection]:
    """The first inspect protocol: of each series its first seed, at the last milestone that most series have, or what
    comes nearest to it.
    """
    if not facts.inspections:
        return []
    protocol = facts.inspections[0].protocol_key
    members = [one for one in facts.inspections if one.protocol_key == protocol]
    counts = {count: len({m.series for m in members if m.images == count}) for count in {m.images for m in members}}
    last = max(counts, key=lambda count: (counts[count], count))
    first: dict[Any, Inspection] = {}
    for one in sorted(members, key=lambda m: (abs(m.images - last), m.seed)):
        first.setdefault(one.series, one)
    return sorted(first.values(), key=lambda one: facts.place(one.series, otherwise=len(facts.series)))


def looks(facts: Facts, inspections: Sequence[Inspection]) -> list[Look]:
    """What the blocks see, image by image."""
    if not inspections:
        return []
    info = inspections[0].info
    count = min(MAX_IMAGES, int(info["num_images"]))
    shown = inspections[:MAX_PANELS]
    panels = [_panels(facts, one, number=number, count=count) for number, one in enumerate(shown)]
    names = info.get("class_names") or facts.class_names
    return [
        Look(
            title=f"Held-out image {image + 1}, class {class_name(names, int(info['labels'][image]))}",
            panels=tuple(of[image] for of in panels),
            left_out=len(inspections) - len(shown),
        )
        for image in range(count)
    ]


def _panels(facts: Facts, one: Inspection, *, number: int, count: int) -> list[Panel]:
    """A panel for each of the first `count` images."""
    info, pca, noisy = one.info, one.array(PCA), one.array(NOISY)
    guided = one.array(GUIDED) if info.get("guided") else None
    chosen = _spread(range(len(info["blocks"])), MAX_BLOCKS)
    columns = (
        "x_t",
        *(f"{info['blocks'][block]}" for block in chosen),
        *(("f_c", "f_g") if guided is not None else ()),
    )
    teacher = info.get("guided") or {}
    words = f"block {teacher['block']} of the teacher, guidance {teacher['guidance']:g}" if teacher else ""
    side = noisy.shape[2:4]
    panels = []
    for image in range(count):
        rows = []
        for index, t in enumerate(info["times"]):
            tokens = [pca[image, index, block] for block in chosen]
            tokens += [guided[image, index, which] for which in (0, 1)] if guided is not None else []
            cells = [_colour(noisy[image, index]), *(_enlarged(token, side) for token in tokens)]
            alt = f"{one.label} at t = {t:g}: noisy input and principal components of {', '.join(columns[1:])}"
            rows.append(Strip(f"{t:g}", index, cells, alt))
        place = facts.place(one.series, otherwise=len(facts.series) + number)
        panels.append(Panel(one.label, place, columns, tuple(rows), guided=words))
    return panels


def _colour(image: Any) -> Any:
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image


def _enlarged(tokens: Any, side: tuple[int, int]) -> Any:
    return np.asarray(
        Image.fromarray(np.ascontiguousarray(tokens)).resize((side[1], side[0]), Image.Resampling.NEAREST)
    )


def strip_uri(strip: Strip) -> str:
    """The strip as a data URI: PNG where cells are small, else reduced and as WebP; the gaps are transparent."""
    cells = [_reduced(cell) for cell in strip.cells]
    height, width = cells[0].shape[:2]
    canvas_ = np.zeros((height, len(cells) * (width + GAP) - GAP, 4), dtype=np.uint8)
    for number, cell in enumerate(cells):
        left = number * (width + GAP)
        canvas_[:, left : left + width, :3] = cell
        canvas_[:, left : left + width, 3] = 255
    stream = io.BytesIO()
    if max(height, width) <= EXACT:
        Image.fromarray(canvas_).save(stream, format="PNG")
        return _uri("png", stream)
    Image.fromarray(canvas_).save(stream, format="WEBP", quality=88, method=2)
    return _uri("webp", stream)


def _uri(kind: str, stream: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _reduced(cell: Any) -> Any:
    cell = _colour(cell)
    longest = max(cell.shape[:2])
    if longest <= MAX_CELL:
        return cell
    size = (round(cell.shape[1] * MAX_CELL / longest), round(cell.shape[0] * MAX_CELL / longest))
    return np.asarray(Image.fromarray(np.ascontiguousarray(cell)).resize(size, Image.Resampling.LANCZOS))


def grid_png(grid: Grid) -> bytes:
    """A grid with its labels as one PNG, for report.md."""
    cells = [[_reduced(cell) for cell in row.cells] for row in grid.rows]
    height, width = cells[0][0].shape[:2]
    pitch = (height + GAP, width + GAP)
    sheet = np.full((len(cells) * pitch[0] - GAP, len(grid.columns) * pitch[1] - GAP, 3), 255, dtype=np.uint8)
    for y, row in enumerate(cells):
        for x, cell in enumerate(row):
            sheet[y * pitch[0] : y * pitch[0] + height, x * pitch[1] : x * pitch[1] + width] = cell
    return canvas.picture(
        sheet,
        columns=[(x * pitch[1] + width / 2, name) for x, name in enumerate(grid.columns)],
        rows=[(y * pitch[0] + height / 2, row.label) for y, row in enumerate(grid.rows)],
        cell_inches=0.62,
        title=grid.title,
    )
