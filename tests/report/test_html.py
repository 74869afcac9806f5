"""The page as text: everything in it, everything escaped, nothing fetched."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from stx.report import html, told
from stx.report.collect import collect
from stx.report.draw import Drawn, draw
from stx.report.facts import Facts


@pytest.fixture(scope="module")
def page(facts: Facts, drawn: Drawn) -> str:
    return html.page(facts, drawn)


def test_every_section_is_there_and_in_the_contents(page: str) -> None:
    sections = re.findall(r'<h2 id="(\w+)">', page)
    wanted = "scores conclusions samples training graph cost attempts protocol again digests"
    assert sections == wanted.split()
    contents = page[page.index("<nav") : page.index("</nav>")]
    assert re.findall(r'href="#(\w+)"', contents) == sections


def test_every_chart_and_every_strip_says_what_it_shows_to_those_who_cannot_see(page: str, drawn: Drawn) -> None:
    labels = re.findall(r'role="img" aria-label="([^"]*)"', page)
    assert len(labels) == len(drawn.charts) + 1
    assert all(len(label) > 20 for label in labels)
    images = re.findall(r"<img ([^>]*)>", page)
    assert len(images) == sum(len(grid.rows) for grids in drawn.grids for grid in grids)
    assert all(re.search(r'alt="[^"]{20,}"', image) for image in images)


def test_nothing_outside_the_page_is_named(page: str) -> None:
    assert "<script" not in page
    assert "@import" not in page
    places = re.findall(r'(?:src|href)="([^"]{0,40})', page) + re.findall(r"url\(([^)]{0,40})", page)
    assert places
    assert all(place.startswith(("#", "data:")) for place in places)


def test_what_users_name_is_escaped(world: Any, add_scored_run: Any) -> None:
    evil = "<script>alert('1')</script>&\"x"
    images = world.add("images", "images")
    world.finish(images, files={"payload/images.json": b'{"class_names": ["<b>bold", "<i>", "a&b"]}'})
    run = add_scored_run(world, "vanilla", method="vanilla")
    broken = world.add("broken", "command")
    world.attempt(broken, result="FAILED", cause="USER", message=evil)
    world.save()
    world.experiment.file.write_text(f"name: x # {evil}\n")
    facts = collect(world.store, world.experiment)
    page = html.page(facts, draw(facts))
    assert run.name in page
    assert "<script" not in page
    assert "&lt;script&gt;alert" in page
    assert "&lt;b&gt;bold" in page
    assert "<b>bold" not in page


def test_code_and_bold_are_the_only_markup_of_a_cell() -> None:
    assert html.inline("**a** `b<` <c>") == "<strong>a</strong> <code>b&lt;</code> &lt;c&gt;"
    assert html.inline("1.5 (1 to 2)", numeric=True) == "1.5<small>1 to 2</small>"
    assert html.symbol("x_t") == "<i>x<sub>t</sub></i>"
    assert html.symbol("class_a") == "class_a"


def test_the_page_of_an_experiment_that_has_not_begun_says_so(world: Any) -> None:
    world.add("images", "images")
    world.save()
    facts = collect(world.store, world.experiment)
    page = html.page(facts, draw(facts))
    assert "<strong>Not finished:</strong> 1 of 1 stage (images)" in page
    assert re.findall(r'<h2 id="(\w+)">', page) == ["graph", "cost", "attempts", "again", "digests"]


def test_a_page_with_inspections_shows_guided_features_and_probes(inspected: Any) -> None:
    facts = collect(inspected.store, inspected.experiment)
    page = html.page(facts, draw(facts))
    assert "Held-out image 1, class ant" in page
    assert "<i>f<sub>g</sub></i>" in page
    assert "block 3 of the teacher, guidance 5" in page
    assert 'id="figure-probes-1"' in page


def test_the_command_that_runs_it_again_writes_the_very_file_and_submits_it(facts: Facts, tmp_path: Path) -> None:
    told_again = told.again(facts)
    stx = tmp_path / "bin" / "stx"
    stx.parent.mkdir()
    stx.write_text('#!/bin/sh\necho "$@" > submitted\n')
    stx.chmod(0o755)
    subprocess.run(["bash", "-c", told_again], cwd=tmp_path, env={"PATH": f"{stx.parent}:/usr/bin:/bin"}, check=True)
    assert (tmp_path / "quickstart.yaml").read_text() == facts.origin.text
    assert (tmp_path / "submitted").read_text() == "submit quickstart.yaml\n"


def test_a_hundred_series_keep_the_page_small(world: Any, add_scored_run: Any) -> None:
    for number in range(40):
        add_scored_run(
            world,
            f"vanilla:lr={number}",
            method="vanilla",
            stage="vanilla",
            milestones=(16_000,),
            point={"lr": number},
        )
    world.save()
    facts = collect(world.store, world.experiment)
    page = html.page(facts, draw(facts))
    assert len(facts.series) == 40
    assert "24 more series are in the store" in page
    assert len(page) < 1_500_000
